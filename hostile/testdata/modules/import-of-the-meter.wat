;; refused
;; The function that counts fuel.
(import "beacon_meter" "refill" (func $refill (param i64) (result i64)))
(func $main (drop (call $refill (i64.const 0x7fffffffffffffff))))
