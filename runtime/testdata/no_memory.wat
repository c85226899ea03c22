;; Has no memory, and needs none.
(module
  (import "beacon_v1" "cancelled" (func $cancelled (result i32)))
  (func (export "beacon_execute") (result i32) (call $cancelled)))
