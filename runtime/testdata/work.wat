;; Takes the same number of instructions every time, and ends well.
(module
  (memory (export "memory") 1)
  (func (export "_start") (local $n i32)
    (local.set $n (i32.const 1000))
    (loop $again
      (i32.store (i32.const 0) (i32.add (local.get $n) (i32.const 1)))
      (br_if $again (local.tee $n (i32.sub (local.get $n) (i32.const 1)))))))
