;; timeout
(module
  (memory (export "memory") 1)
  (func $fib (param i64) (result i64)
    (if (result i64) (i64.lt_u (local.get 0) (i64.const 2))
      (then (i64.const 1))
      (else (i64.add (call $fib (i64.sub (local.get 0) (i64.const 1))) (call $fib (i64.sub (local.get 0) (i64.const 2)))))))
  (func $first (drop (call $fib (i64.const 90))))
  (start $first)
  (func $start)
  (export "_start" (func $start)))
