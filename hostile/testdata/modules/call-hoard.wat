;; call_limit
;; Keeps the results of all its calls, which are as large as results can be.
;; grants hoard
(func $main (local $n i32)
  (loop $again
    (if (call $call_open (str "{\22Capability\22:\22large\22}") (i32.const 32)) (then (call $proc_exit (i32.const 1))))
    (if (call $call_wait (call $fd)) (then (call $proc_exit (i32.const 1))))
    (drop (call $call_result (call $fd) (i32.const 0) (i32.const 0) (i32.const 40)))
    (br_if $again (i32.lt_u (local.tee $n (i32.add (local.get $n) (i32.const 1))) (i32.const 16)))))
