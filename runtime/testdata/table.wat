;; Grows its table until that fails.
(module (memory (export "memory") 1) (table $t 1 funcref)
  (func (export "_start")
    (if (i32.ne (table.grow $t (ref.null func) (i32.const 0xf0000000)) (i32.const -1)) (then unreachable))
    (loop $again (br_if $again (i32.ne (table.grow $t (ref.null func) (i32.const 1000)) (i32.const -1))))))
