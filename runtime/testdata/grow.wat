;; Grows its memory until that fails, and breaks down over it.
(module (memory (export "memory") 1)
  (func $allocate
    (loop $again
      (if (i32.eq (memory.grow (i32.const 16)) (i32.const -1)) (then unreachable))
      (br $again)))
  (func (export "_start") (call $allocate)))
