;; ok
;; Has the host note the time on a file, and reads it there: it is no finer than a clock.
(func $coarse (param $at i32)
  (call $must (i64.ne (i64.const 0) (i64.rem_u (i64.load (local.get $at)) (i64.const 1000000)))))
(func $main (local $n i32)
  (call $must (call $open (str "t") (i32.const 1)))
  (loop $again
    (call $must (call $path_filestat_set_times (i32.const 3) (i32.const 0) (str "t") (i64.const 0) (i64.const 0) (i32.const 10)))
    (call $must (call $path_filestat_get (i32.const 3) (i32.const 0) (str "t") (i32.const 64)))
    (call $coarse (i32.const 104)) (call $coarse (i32.const 112)) (call $coarse (i32.const 120))
    (call $must (call $fd_filestat_set_times (call $fd) (i64.const 0) (i64.const 0) (i32.const 10)))
    (call $must (call $fd_filestat_get (call $fd) (i32.const 64)))
    (call $coarse (i32.const 104)) (call $coarse (i32.const 112)) (call $coarse (i32.const 120))
    (br_if $again (i32.lt_u (local.tee $n (i32.add (local.get $n) (i32.const 1))) (i32.const 20)))))
