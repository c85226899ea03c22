;; timeout
(module
  (memory (export "memory") 3840)
  (func $start
    (loop $again
      (memory.fill (i32.const 0) (i32.const 1) (i32.const 251658240))
      (br $again)))
  (export "_start" (func $start)))
