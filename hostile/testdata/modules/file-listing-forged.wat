;; ok
;; Lists a directory from where nothing was, while what is in it goes and comes.
(func $list (param $cookie i64) (param $size i32) (result i32)
  (call $fd_readdir (i32.const 3) (i32.const 65536) (local.get $size) (local.get $cookie) (i32.const 40)))
(func $main (local $n i32) (local $cookie i64)
  (drop (memory.grow (i32.const 2)))
  (loop $make
    (i32.store (i32.const 1024) (i32.add (i32.const 0x41414141) (local.get $n)))
    (call $must (call $open (i32.const 1024) (i32.const 4) (i32.const 1))) (call $must (call $fd_close (call $fd)))
    (br_if $make (i32.lt_u (local.tee $n (i32.add (local.get $n) (i32.const 1))) (i32.const 50))))
  (loop $again
    (call $must (call $list (local.get $cookie) (i32.const 24))) (call $must (call $list (local.get $cookie) (i32.const 131072)))
    (call $must (i32.gt_u (i32.load (i32.const 40)) (i32.const 131072)))
    (i32.store (i32.const 1024) (i32.add (i32.const 0x41414141) (i32.and (i32.wrap_i64 (local.get $cookie)) (i32.const 31))))
    (if (call $path_unlink_file (i32.const 3) (i32.const 1024) (i32.const 4)) (then
      (call $must (call $open (i32.const 1024) (i32.const 4) (i32.const 1))) (call $must (call $fd_close (call $fd)))))
    (local.set $cookie (i64.add (i64.mul (local.get $cookie) (i64.const 3)) (i64.const 1)))
    (br_if $again (i32.lt_u (local.tee $n (i32.add (local.get $n) (i32.const 1))) (i32.const 200))))
  (call $must (call $list (i64.const -1) (i32.const 65536))) (call $must (call $list (i64.const 0x8000000000000000) (i32.const 65536))))
