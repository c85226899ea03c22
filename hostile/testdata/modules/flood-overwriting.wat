;; file_limit
;; The same bytes of a file, over and over again.
(func $main
  (call $must (call $open (str "x") (i32.const 1)))
  (i32.store (i32.const 16) (i32.const 0)) (i32.store (i32.const 20) (i32.const 131072))
  (loop $again
    (br_if $again (i32.eqz (call $fd_pwrite (call $fd) (i32.const 16) (i32.const 1) (i64.const 0) (i32.const 24)))))
  (call $proc_exit (i32.const 1)))
