;; ok
;; Prints all of its memory before it has written to it, and what it gets when it grows.
(func $main
  (call $print (i32.const 64) (i32.const 60000)) (drop (memory.grow (i32.const 4))) (call $print (i32.const 131072) (i32.const 262144)))
