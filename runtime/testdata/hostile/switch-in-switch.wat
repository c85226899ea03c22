;; timeout
(module
  (memory (export "memory") 1)
  (func $start (local $place i32) (local $other i32)
    (loop $again
      (block $second (block $first
        (br_table $first $second (local.get $place))))
      (loop $inside
        ;; where $first was, this block is
        (block $b (block $a
          (br_table $a $b (local.get $other)))
          (local.set $place (i32.const 0)) (br $again)))))
  (export "_start" (func $start)))
