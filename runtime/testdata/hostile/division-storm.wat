;; timeout
(module
  (memory (export "memory") 1)
  (func $start (local i64)
    (loop $again (local.set 0 (i64.div_u (i64.const -1) (i64.or (local.get 0) (i64.const 1)))) (br $again)))
  (export "_start" (func $start)))
