;; web_limit
;; Calls itself as often as it can, and so does each of those.
;; grants bomb
(func $main (local $n i32)
  (loop $more
    (call $must (call $call_open (str "{\22Capability\22:\22call-bomb\22}") (i32.const 32)))
    (br_if $more (i32.lt_u (local.tee $n (i32.add (local.get $n) (i32.const 1))) (i32.const 16))))
  (local.set $n (i32.const 0))
  (loop $next
    (if (call $call_wait (local.get $n)) (then (call $proc_exit (i32.const 1))))
    (br_if $next (i32.lt_u (local.tee $n (i32.add (local.get $n) (i32.const 1))) (i32.const 16)))))
