;; Breaks down three functions deep.
(module (memory (export "memory") 1)
  (func $read_the_header unreachable)
  (func $parse (call $read_the_header))
  (func (export "_start") (call $parse)))
