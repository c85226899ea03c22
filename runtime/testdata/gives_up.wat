;; Reports, works until it is cancelled, and then gives up.
(module
  (import "beacon_v1" "cancelled" (func $cancelled (result i32)))
  (import "beacon_v1" "progress" (func $progress (param f64 i32 i32 i32 i32) (result i32)))
  (import "beacon_v1" "fail" (func $fail (param i32 i32) (result i32)))
  (memory (export "memory") 1)
  (data (i32.const 0) "too late")
  (func (export "beacon_execute") (result i32)
    (drop (call $progress (f64.const 1) (i32.const 0) (i32.const 0) (i32.const 0) (i32.const 0)))
    (loop $again (br_if $again (i32.eqz (call $cancelled))))
    (drop (call $fail (i32.const 0) (i32.const 8))) (i32.const 1)))
