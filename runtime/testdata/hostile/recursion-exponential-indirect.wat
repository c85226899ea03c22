;; timeout
(module
  (memory (export "memory") 1)
  (type $t (func (param i32)))
  (table funcref (elem $tree))
  (func $tree (param i32)
    (if (local.get 0) (then
      (call_indirect (type $t) (i32.sub (local.get 0) (i32.const 1)) (i32.const 0))
      (call_indirect (type $t) (i32.sub (local.get 0) (i32.const 1)) (i32.const 0)))))
  (func $start (call $tree (i32.const 60)))
  (export "_start" (func $start)))
