;; Never ends, and has no loop: each level calls the next twice.
(module (memory (export "memory") 1)
  (func $f (param i32)
    (if (i32.eqz (local.get 0)) (then (return)))
    (call $f (i32.sub (local.get 0) (i32.const 1)))
    (call $f (i32.sub (local.get 0) (i32.const 1))))
  (func (export "_start") (call $f (i32.const 200))))
