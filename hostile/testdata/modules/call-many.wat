;; web_limit
;; Calls without end.
;; grants api
(func $main (local $n i32)
  (loop $again
    (if (call $call_open (str "{\22Capability\22:\22honest\22}") (i32.const 32)) (then (call $proc_exit (i32.const 1))))
    (if (call $call_wait (call $fd)) (then (call $proc_exit (i32.const 1)))) (call $must (call $handle_close (call $fd)))
    (br_if $again (i32.lt_u (local.tee $n (i32.add (local.get $n) (i32.const 1))) (i32.const 10000)))))
