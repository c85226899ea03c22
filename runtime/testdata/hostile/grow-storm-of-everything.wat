;; timeout
(module
  (memory (export "memory") 1)
  (func $start
    (loop $again
      (drop (memory.grow (i32.const 65535)))
      (br $again)))
  (export "_start" (func $start)))
