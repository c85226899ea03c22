;; Fills a table while it initialises, and calls through it.
(module
  (type $v (func (result i32)))
  (memory (export "memory") 1)
  (table $t 2 funcref)
  (elem declare func $f)
  (func $f (result i32) (i32.const 0))
  (func (export "beacon_initialize") (result i32)
    (table.set $t (i32.const 1) (ref.func $f))
    (i32.const 0))
  (func (export "beacon_execute") (result i32) (call_indirect (type $v) (i32.const 1))))
