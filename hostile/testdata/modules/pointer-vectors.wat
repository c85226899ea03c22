;; ok
;; Lists of buffers that are too long, or lie where there is nothing.
(func $main
  (call $refuse (call $fd_write (i32.const 1) (i32.const -8) (i32.const 1) (i32.const 24))) (call $refuse (call $fd_write (i32.const 1) (i32.const 16) (i32.const -1) (i32.const 24)))
  (call $refuse (call $fd_write (i32.const 1) (i32.const 16) (i32.const 0x20000001) (i32.const 24))) (call $refuse (call $fd_write (i32.const 1) (i32.const 0) (i32.const 8192) (i32.const 24)))
  (i32.store (i32.const 16) (i32.const -16)) (i32.store (i32.const 20) (i32.const 32))
  (call $refuse (call $fd_write (i32.const 1) (i32.const 16) (i32.const 1) (i32.const 24))) (call $refuse (call $fd_read (i32.const 0) (i32.const 16) (i32.const 1) (i32.const 24)))
  (i32.store (i32.const 16) (i32.const 8)) (i32.store (i32.const 20) (i32.const -1))
  (call $refuse (call $fd_write (i32.const 1) (i32.const 16) (i32.const 1) (i32.const 24)))
  (call $must (call $open (str "input.txt") (i32.const 0)))
  (call $refuse (call $fd_read (call $fd) (i32.const 16) (i32.const 1) (i32.const 24))) (call $refuse (call $fd_pread (call $fd) (i32.const 16) (i32.const 1) (i64.const 0) (i32.const 24))))
