;; file_limit
;; Files of holes, a terabyte each, by every way there is to one.
(func $main
  (call $must (call $open (str "holes") (i32.const 1)))
  (call $refuse (call $fd_filestat_set_size (call $fd) (i64.const 0x10000000000))) (call $refuse (call $fd_filestat_set_size (call $fd) (i64.const -1))) (call $refuse (call $fd_filestat_set_size (call $fd) (i64.const 0x7fffffffffffffff)))
  (call $refuse (call $fd_allocate (call $fd) (i64.const 0) (i64.const 0x10000000000))) (call $refuse (call $fd_allocate (call $fd) (i64.const 0x7fffffffffffffff) (i64.const 0x7fffffffffffffff))) (call $refuse (call $fd_allocate (call $fd) (i64.const -1) (i64.const 1)))
  (i32.store (i32.const 16) (i32.const 0)) (i32.store (i32.const 20) (i32.const 1))
  (call $refuse (call $fd_pwrite (call $fd) (i32.const 16) (i32.const 1) (i64.const 0x10000000000) (i32.const 24))) (call $refuse (call $fd_pwrite (call $fd) (i32.const 16) (i32.const 1) (i64.const -1) (i32.const 24)))
  (drop (call $fd_seek (call $fd) (i64.const 0x7ffffffffffffff0) (i32.const 0) (i32.const 64)))
  (i32.store (i32.const 20) (i32.const 64))
  (call $refuse (call $fd_write (call $fd) (i32.const 16) (i32.const 1) (i32.const 24)))
  (call $proc_exit (i32.const 1)))
