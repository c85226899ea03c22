;; Calls itself without end, and not at the end of the function.
(module (memory (export "memory") 1)
  (global $n (mut i32) (i32.const 0))
  (func $deeper (result i32)
    (global.set $n (i32.add (global.get $n) (i32.const 1)))
    (i32.add (call $deeper) (global.get $n)))
  (func (export "_start") (drop (call $deeper))))
