;; timeout
(module
  (memory (export "memory") 1)
  (table $t 199000 funcref)
  (table $g 0 funcref)
  (func $start
    (loop $again
      (drop (table.grow $g (ref.null func) (i32.const 0)))
      (br $again)))
  (export "_start" (func $start)))
