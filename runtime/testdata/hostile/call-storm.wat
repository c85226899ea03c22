;; timeout
(module
  (memory (export "memory") 1)
  (func $f)
  (func $start
    (loop $again
      (call $f)
      (br $again)))
  (export "_start" (func $start)))
