;; stack_limit
(module
  (memory (export "memory") 1)
  (func $down (call $down))
  (start $down)
  (func $start)
  (export "_start" (func $start)))
