;; timeout
(module
  (memory (export "memory") 1)
  (func $start (loop $again (br $again)))
  (export "_start" (func $start)))
