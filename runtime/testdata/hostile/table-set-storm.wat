;; timeout
(module
  (memory (export "memory") 1)
  (table $t 199000 funcref)
  (table $g 0 funcref)
  (func $start
    (loop $again
      (table.set $t (i32.const 5) (table.get $t (i32.const 6)))
      (br $again)))
  (export "_start" (func $start)))
