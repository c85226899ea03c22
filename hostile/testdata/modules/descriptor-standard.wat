;; ok
;; The directory in the place of standard output, and the other way round.
(func $main
  (drop (call $fd_renumber (i32.const 3) (i32.const 1))) (drop (call $fd_renumber (i32.const 0) (i32.const 2)))
  (call $refuse (call $path_open (i32.const 1) (i32.const 1) (str "../canary") (i32.const 0) (i64.const 2) (i64.const 0) (i32.const 0) (i32.const 32)))
  (call $refuse (call $path_open (i32.const 1) (i32.const 1) (str "..") (i32.const 2) (i64.const -1) (i64.const -1) (i32.const 0) (i32.const 32)))
  (call $print (i32.const 0) (i32.const 64)) (drop (call $fd_close (i32.const 1))) (drop (call $fd_close (i32.const 2))) (drop (call $fd_close (i32.const 0)))
  (call $refuse (call $fd_close (i32.const 0))) (call $refuse (call $fd_close (i32.const 1)))
  (call $print (i32.const 0) (i32.const 64)))
