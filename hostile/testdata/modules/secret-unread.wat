;; ok
;; Prints what is left in a buffer after calls that had nothing to put there.
(func $main
  (drop (call $setting (str "absent") (i32.const 4096) (i32.const 32768) (i32.const 32))) (drop (call $last_error (i32.const 4096) (i32.const 32768) (i32.const 32)))
  (call $must (call $open (str "input.txt") (i32.const 0)))
  (i32.store (i32.const 16) (i32.const 4096)) (i32.store (i32.const 20) (i32.const 32768))
  (drop (call $fd_pread (call $fd) (i32.const 16) (i32.const 1) (i64.const 1000000) (i32.const 24))) (drop (call $fd_readdir (i32.const 3) (i32.const 4096) (i32.const 32768) (i64.const 77) (i32.const 32)))
  (call $print (i32.const 4096) (i32.const 32768)))
