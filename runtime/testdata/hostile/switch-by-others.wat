;; timeout
(module
  (memory (export "memory") 1)
  (func $start (local $place i32) (local $other i32)
    (loop $again
      (block $second (block $first
        (br_table $first $second (local.get $place)))
        ;; looks as if it went on, and does not
        (local.set $place (i32.const 0))
        (local.set $other (i32.const 1)) (br $again))
      (local.set $other (i32.const 1)) (br $again)))
  (export "_start" (func $start)))
