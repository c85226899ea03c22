;; timeout
(module
  (memory (export "memory") 1)
  (data $d "x")
  (func $start
    (loop $again
      (memory.init $d (i32.const 0) (i32.const 0) (i32.const 0))
      (br $again)))
  (export "_start" (func $start)))
