;; file_limit
;; One file without end.
(func $main
  (call $must (call $open (str "big") (i32.const 1)))
  (i32.store (i32.const 16) (i32.const 0)) (i32.store (i32.const 20) (i32.const 65536))
  (loop $again
    (br_if $again (i32.eqz (call $fd_write (call $fd) (i32.const 16) (i32.const 1) (i32.const 24)))))
  (call $proc_exit (i32.const 1)))
