;; file_limit
;; The same from descriptor to descriptor, so that no name is long.
(func $main (local $dir i32) (local $n i32)
  (local.set $dir (i32.const 3))
  (loop $down
    (if (call $path_create_directory (local.get $dir) (str "d")) (then (call $proc_exit (i32.const 1))))
    (if (call $path_open (local.get $dir) (i32.const 0) (str "d") (i32.const 2) (i64.const -1) (i64.const -1) (i32.const 0) (i32.const 32)) (then (call $proc_exit (i32.const 1))))
    (if (i32.ne (local.get $dir) (i32.const 3)) (then (call $must (call $fd_close (local.get $dir)))))
    (local.set $dir (call $fd))
    (br_if $down (i32.lt_u (local.tee $n (i32.add (local.get $n) (i32.const 1))) (i32.const 5000)))))
