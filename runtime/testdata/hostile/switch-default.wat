;; timeout
(module
  (memory (export "memory") 1)
  (func $start (local $place i32)
    (local.set $place (i32.const 1))
    (loop $again
      (block $second (block $first
        (br_table $first $second (local.get $place))))
      ;; beyond the table, which is the last of it: where it is already
      (local.set $place (i32.const -5)) (br $again)))
  (export "_start" (func $start)))
