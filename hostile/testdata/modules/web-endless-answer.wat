;; web_limit
;; An answer without end.
;; grants api
(func $main
  (call $must (call $request (str "Endless"))) (call $must (call $http_wait (call $fd) (i32.const 44)))
  (loop $again
    (br_if $again (i32.eqz (call $http_read (call $fd) (i32.const 0) (i32.const 65536) (i32.const 40)))))
  (call $proc_exit (i32.const 1)))
