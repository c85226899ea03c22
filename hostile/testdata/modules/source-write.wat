;; ok
;; The source is there to be read.
(func $main
  (call $refuse (call $path_open (i32.const 3) (i32.const 0) (str "input.txt") (i32.const 0) (i64.const 64) (i64.const 0) (i32.const 0) (i32.const 32)))
  (call $refuse (call $path_open (i32.const 3) (i32.const 0) (str "input.txt") (i32.const 0) (i64.const 64) (i64.const 0) (i32.const 1) (i32.const 32)))
  (call $refuse (call $path_open (i32.const 3) (i32.const 0) (str "input.txt") (i32.const 8) (i64.const 64) (i64.const 0) (i32.const 0) (i32.const 32)))
  (call $refuse (call $path_open (i32.const 3) (i32.const 0) (str "input.txt") (i32.const 8) (i64.const 2) (i64.const 0) (i32.const 0) (i32.const 32)))
  (call $refuse (call $path_open (i32.const 3) (i32.const 0) (str "./input.txt") (i32.const 9) (i64.const 66) (i64.const 0) (i32.const 0) (i32.const 32)))
  (call $must (call $path_open (i32.const 3) (i32.const 0) (str "input.txt") (i32.const 0) (i64.const 2) (i64.const 0) (i32.const 0) (i32.const 32)))
  (i32.store (i32.const 16) (i32.const 0)) (i32.store (i32.const 20) (i32.const 8))
  (call $refuse (call $fd_write (call $fd) (i32.const 16) (i32.const 1) (i32.const 24))) (call $refuse (call $fd_pwrite (call $fd) (i32.const 16) (i32.const 1) (i64.const 0) (i32.const 24)))
  (call $refuse (call $fd_filestat_set_size (call $fd) (i64.const 0))) (call $refuse (call $fd_allocate (call $fd) (i64.const 0) (i64.const 100000)))
  (call $refuse (call $fd_filestat_set_times (call $fd) (i64.const 0) (i64.const 0) (i32.const 5))))
