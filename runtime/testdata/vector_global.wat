;; Counts in a vector.
(module
  (memory (export "memory") 1)
  (global $n (mut v128) (v128.const i32x4 0 0 0 0))
  (func (export "beacon_execute") (result i32)
    (global.set $n (i32x4.add (global.get $n) (v128.const i32x4 1 0 0 0)))
    ;; an item finds 0
    (i32.sub (i32x4.extract_lane 0 (global.get $n)) (i32.const 1))))
