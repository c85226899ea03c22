;; timeout stack_limit
(module
  (memory (export "memory") 1)
  (func $a (param i32 i32) (result i32)
    (if (result i32) (local.get 0)
      (then (if (result i32) (local.get 1)
        (then (call $a (i32.sub (local.get 0) (i32.const 1)) (call $a (local.get 0) (i32.sub (local.get 1) (i32.const 1)))))
        (else (call $a (i32.sub (local.get 0) (i32.const 1)) (i32.const 1)))))
      (else (i32.add (local.get 1) (i32.const 1)))))
  (func $start (drop (call $a (i32.const 4) (i32.const 2))))
  (export "_start" (func $start)))
