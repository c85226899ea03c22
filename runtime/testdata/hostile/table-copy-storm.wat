;; timeout
(module
  (memory (export "memory") 1)
  (table $t 199000 funcref)
  (table $g 0 funcref)
  (func $start
    (loop $again
      (table.copy $t $t (i32.const 1) (i32.const 0) (i32.const 198999))
      (br $again)))
  (export "_start" (func $start)))
