;; Logs what is called, in order.
(module
  (import "beacon_v1" "log" (func $log (param i32 i32 i32) (result i32)))
  (memory (export "memory") 1)
  (data (i32.const 0) "_initialize")
  (data (i32.const 20) "beacon_initialize")
  (data (i32.const 40) "beacon_execute")
  (data (i32.const 60) "beacon_shutdown")
  (func (export "_initialize") (drop (call $log (i32.const 1) (i32.const 0) (i32.const 11))))
  (func (export "beacon_initialize") (result i32) (call $log (i32.const 1) (i32.const 20) (i32.const 17)))
  (func (export "beacon_execute") (result i32) (call $log (i32.const 1) (i32.const 40) (i32.const 14)))
  (func (export "beacon_shutdown") (result i32) (call $log (i32.const 1) (i32.const 60) (i32.const 15))))
