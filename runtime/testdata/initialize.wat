;; Cannot initialise.
(module
  (import "beacon_v1" "fail" (func $fail (param i32 i32) (result i32)))
  (memory (export "memory") 1)
  (data (i32.const 0) "no licence\1b[31m")
  (func (export "beacon_initialize") (result i32) (drop (call $fail (i32.const 0) (i32.const 15))) (i32.const 3))
  (func (export "beacon_execute") (result i32) (i32.const 0)))
