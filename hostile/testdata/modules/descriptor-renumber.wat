;; ok
;; A table of descriptors as large as a number allows.
(func $main
  (call $must (call $open (str "input.txt") (i32.const 0)))
  (call $refuse (call $fd_renumber (call $fd) (i32.const 0x7fffffff))) (call $refuse (call $fd_renumber (call $fd) (i32.const -1))) (call $refuse (call $fd_renumber (call $fd) (i32.const 1024)))
  (call $refuse (call $fd_renumber (i32.const -1) (call $fd))) (call $refuse (call $fd_renumber (i32.const 0x7fffffff) (i32.const 0x7ffffffe))) (call $refuse (call $fd_renumber (call $fd) (i32.const 500))))
