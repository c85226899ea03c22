;; timeout
(module
  (memory (export "memory") 1)
  (func $start
    (loop $again (block $a (block $b (br_table $a $again $b $again (i32.const 1))))))
  (export "_start" (func $start)))
