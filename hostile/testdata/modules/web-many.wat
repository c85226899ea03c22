;; web_limit
;; Requests without end.
;; grants api
(func $main (local $n i32)
  (loop $again
    (if (call $request (str "Short")) (then (call $proc_exit (i32.const 1))))
    (if (call $http_wait (call $fd) (i32.const 44)) (then (call $proc_exit (i32.const 1))))
    (call $must (call $handle_close (call $fd)))
    (br_if $again (i32.lt_u (local.tee $n (i32.add (local.get $n) (i32.const 1))) (i32.const 10000)))))
