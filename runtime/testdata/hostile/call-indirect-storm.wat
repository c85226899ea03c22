;; timeout
(module
  (memory (export "memory") 1)
  (table funcref (elem $f))
  (func $f)
  (func $start
    (loop $again
      (call_indirect (i32.const 0))
      (br $again)))
  (export "_start" (func $start)))
