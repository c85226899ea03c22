;; timeout
(module
  (memory (export "memory") 1)
  (func $start (local i64)
    (loop $again
      (local.set 0 (i64.add (local.get 0) (i64.const 1)))
      (br_if $again (i64.ne (local.get 0) (i64.const -1)))))
  (export "_start" (func $start)))
