;; timeout
(module
  (memory (export "memory") 1)
  (type $pair (func (param i32 i64) (result i32 i64)))
  (func $start
    (i32.const 1) (i64.const 2)
    (loop $again (type $pair)
      (drop) (i64.const 3) (br $again))
    (drop) (drop))
  (export "_start" (func $start)))
