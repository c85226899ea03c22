;; timeout
(module
  (memory (export "memory") 1)
  (func $start (local $place i32)
    (loop $again
      (block $third (block $second (block $first
        (br_table $first $second $third (local.get $place)))
        (local.set $place (i32.const 1)) (br $again))
        (local.set $place (i32.const 2)) (br $again))
      (local.set $place (i32.const 0)) (br $again)))
  (export "_start" (func $start)))
