;; ok
;; More than a descriptor was opened for.
(func $main
  (call $must (call $path_open (i32.const 3) (i32.const 0) (str "x") (i32.const 1) (i64.const 64) (i64.const 0) (i32.const 0) (i32.const 32)))
  (i32.store (i32.const 16) (i32.const 4096)) (i32.store (i32.const 20) (i32.const 64))
  (call $refuse (call $fd_read (call $fd) (i32.const 16) (i32.const 1) (i32.const 24)))
  (call $refuse (call $fd_fdstat_set_rights (call $fd) (i64.const -1) (i64.const -1))) (call $refuse (call $fd_fdstat_set_rights (i32.const 3) (i64.const -1) (i64.const -1)))
  (call $refuse (call $fd_fdstat_set_flags (call $fd) (i32.const -1))) (call $refuse (call $fd_write (i32.const 3) (i32.const 16) (i32.const 1) (i32.const 24)))
  (call $refuse (call $fd_write (i32.const 0) (i32.const 16) (i32.const 1) (i32.const 24))) (call $refuse (call $fd_read (i32.const 1) (i32.const 16) (i32.const 1) (i32.const 24)))
  (call $refuse (call $fd_seek (call $fd) (i64.const -1) (i32.const 0) (i32.const 32))) (call $refuse (call $fd_seek (call $fd) (i64.const 0) (i32.const 9) (i32.const 32))))
