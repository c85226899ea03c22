;; Has no loop, and calls itself 2^64 times.
(module (memory (export "memory") 1)
  (func $twice (param $n i32)
    (if (local.get $n)
      (then
        (call $twice (i32.sub (local.get $n) (i32.const 1)))
        (call $twice (i32.sub (local.get $n) (i32.const 1))))))
  (func (export "_start") (call $twice (i32.const 64))))
