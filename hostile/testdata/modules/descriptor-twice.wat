;; ok
;; Uses what it has closed.
(func $main (local $fd i32)
  (call $must (call $open (str "x") (i32.const 1))) (local.set $fd (call $fd))
  (call $must (call $fd_close (local.get $fd))) (call $refuse (call $fd_close (local.get $fd)))
  (i32.store (i32.const 16) (i32.const 4096)) (i32.store (i32.const 20) (i32.const 64))
  (call $refuse (call $fd_write (local.get $fd) (i32.const 16) (i32.const 1) (i32.const 24))) (call $refuse (call $fd_seek (local.get $fd) (i64.const 0) (i32.const 0) (i32.const 32)))
  (call $must (call $fd_close (i32.const 3))) (call $refuse (call $open (str "input.txt") (i32.const 0))) (call $refuse (call $fd_readdir (i32.const 3) (i32.const 4096) (i32.const 64) (i64.const 0) (i32.const 32))))
