;; timeout
(module
  (memory (export "memory") 1)
  (func $start
    (if (i32.const 0) (then (unreachable)) (else (loop $again (br $again)))))
  (export "_start" (func $start)))
