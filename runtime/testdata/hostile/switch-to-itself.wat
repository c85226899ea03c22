;; timeout
(module
  (memory (export "memory") 1)
  (func $start (local $place i32)
    (loop $again
      (block $second (block $first
        (br_table $first $second $again (local.get $place)))
        (local.set $place (i32.const 1)) (br $again))
      (local.set $place (i32.const 2)) (br $again)))
  (export "_start" (func $start)))
