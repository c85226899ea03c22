;; ok
;; A memory of no pages, and calls that point to its beginning, which is its end.
(memory (export "memory") 0)
(func $main
  (call $refuse (call $clock_time_get (i32.const 0) (i64.const 0) (i32.const 0))) (call $refuse (call $fd_write (i32.const 1) (i32.const 0) (i32.const 1) (i32.const 0)))
  (call $refuse (call $random_get (i32.const 0) (i32.const 1))) (call $must (call $random_get (i32.const 0) (i32.const 0))) (call $refuse (call $random_get (i32.const 1) (i32.const 0)))
  (call $refuse (call $args_get (i32.const 0) (i32.const 0))) (call $refuse (call $work_item (i32.const 0) (i32.const 0) (i32.const 0)))
  (call $refuse (call $poll_oneoff (i32.const 0) (i32.const 0) (i32.const 1) (i32.const 0))) (call $refuse (call $http_open (i32.const 0) (i32.const 0) (i32.const 0)))
  (call $refuse (call $output (i32.const 0) (i32.const 0) (i32.const 0) (i32.const 0))) (call $must (call $log (i32.const 0) (i32.const 0) (i32.const 0)))
  (call $must (memory.grow (i32.const 1)))
  (call $must (call $clock_time_get (i32.const 0) (i64.const 0) (i32.const 65528))) (call $refuse (call $clock_time_get (i32.const 0) (i64.const 0) (i32.const 65529)))
  (call $must (call $random_get (i32.const 65536) (i32.const 0))) (call $refuse (call $random_get (i32.const 65535) (i32.const 2))) (call $refuse (call $random_get (i32.const -1) (i32.const -1)))
  (call $must (i32.ne (memory.grow (i32.const 65535)) (i32.const -1))))
