;; Cannot describe itself, and says so.
(module
  (import "beacon_v1" "fail" (func $fail (param i32 i32) (result i32)))
  (memory (export "memory") 1)
  (data (i32.const 0) "no words")
  (func (export "beacon_describe") (result i32) (drop (call $fail (i32.const 0) (i32.const 8))) (i32.const 1))
  (func (export "beacon_execute") (result i32) (i32.const 0)))
