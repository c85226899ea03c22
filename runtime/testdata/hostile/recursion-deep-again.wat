;; timeout
(module
  (memory (export "memory") 1)
  (global $depth (mut i32) (i32.const 0))
  ;; as deep as there is room for, again and again
  (func $down (param i32)
    (if (local.get 0) (then (call $down (i32.sub (local.get 0) (i32.const 1))))))
  (func $start
    (loop $again (call $down (i32.const 9000)) (br $again)))
  (export "_start" (func $start)))
