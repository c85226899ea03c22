;; timeout
(module
  (memory (export "memory") 1)
  (func $start (local v128)
    (loop $again (local.set 0 (f64x2.sqrt (f64x2.div (local.get 0) (v128.const f64x2 3 7)))) (br $again)))
  (export "_start" (func $start)))
