;; memory_limit
;; All the memory there is, and then some.
(func $main
  (loop $again (br_if $again (i32.ne (memory.grow (i32.const 16)) (i32.const -1))))
  (unreachable))
