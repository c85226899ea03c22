;; ok
;; Calls itself what others are called.
(global $fuel_of_its_own (export "beacon_fuel") (mut i64) (i64.const 0x7fffffffffffffff))
(func $main) (func (export "fd_write")) (func (export "refill")) (func (export "malloc") (param i32) (result i32) (unreachable)) (func (export "cabi_realloc") (unreachable))
(export "_start" (func $main))
