;; timeout
(module
  (memory (export "memory") 3840)
  (func $start (local i32)
    (loop $again
      (i32.store (local.get 0) (local.get 0))
      (local.set 0 (i32.rem_u (i32.add (local.get 0) (i32.const 4096)) (i32.const 251658240)))
      (br $again)))
  (export "_start" (func $start)))
