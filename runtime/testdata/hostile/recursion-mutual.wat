;; stack_limit
(module
  (memory (export "memory") 1)
  (func $a (call $b))
  (func $b (call $a))
  (func $start (call $a))
  (export "_start" (func $start)))
