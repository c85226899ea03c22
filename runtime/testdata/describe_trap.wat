;; Breaks down describing itself, after a word about it.
(module
  (import "beacon_v1" "log" (func $log (param i32 i32 i32) (result i32)))
  (memory (export "memory") 1)
  (data (i32.const 0) "the table of units is empty")
  (func $read_units (drop (call $log (i32.const 3) (i32.const 0) (i32.const 27))) unreachable)
  (func (export "beacon_describe") (result i32) (call $read_units) (i32.const 0))
  (func (export "beacon_execute") (result i32) (i32.const 0)))
