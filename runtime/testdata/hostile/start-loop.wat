;; timeout
(module
  (memory (export "memory") 1)
  (func $first (loop $again (br $again)))
  (start $first)
  (func $start)
  (export "_start" (func $start)))
