;; trapped
(module
  (memory (export "memory") 3840)
  (func $start (memory.fill (i32.const 1) (i32.const 1) (i32.const 251658240)))
  (export "_start" (func $start)))
