;; timeout
(module
  (memory (export "memory") 1)
  (table $t 199000 funcref)
  (table $g 0 funcref)
  (func $start
    (loop $again
      (table.fill $t (i32.const 0) (ref.null func) (i32.const 199000))
      (br $again)))
  (export "_start" (func $start)))
