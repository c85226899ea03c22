;; timeout
(module
  (memory (export "memory") 1)
  (func $start (local i32)
    (loop $a (loop $b (loop $c (loop $d
      (local.set 0 (i32.add (local.get 0) (i32.const 1)))
      (br_table $a $b $c $d (i32.and (local.get 0) (i32.const 3))))))))
  (export "_start" (func $start)))
