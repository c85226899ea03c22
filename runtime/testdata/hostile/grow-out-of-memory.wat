;; memory_limit trapped
(module
  (memory (export "memory") 1)
  (func $start
    (loop $again
      (br_if $again (i32.ne (memory.grow (i32.const 64)) (i32.const -1))))
    (unreachable))
  (export "_start" (func $start)))
