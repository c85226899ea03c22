;; stack_limit
(module
  (memory (export "memory") 1)
  (type $t (func))
  (table funcref (elem $down))
  (func $down (call_indirect (type $t) (i32.const 0)))
  (func $start (call $down))
  (export "_start" (func $start)))
