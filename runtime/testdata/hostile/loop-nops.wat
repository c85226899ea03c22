;; timeout
(module
  (memory (export "memory") 1)
  (func $start (loop $again nop nop nop nop (br $again)))
  (export "_start" (func $start)))
