;; timeout
(module
  (memory (export "memory") 1)
  (func $start
    (loop $again
      (drop (memory.grow (i32.const 1)))
      (br $again)))
  (export "_start" (func $start)))
