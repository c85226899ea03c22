;; ok
;; There are no sockets.
(func $main (local $fd i32)
  (loop $next
    (call $refuse (call $sock_accept (local.get $fd) (i32.const 0) (i32.const 32))) (call $refuse (call $sock_recv (local.get $fd) (i32.const 16) (i32.const 1) (i32.const 0) (i32.const 32) (i32.const 36)))
    (call $refuse (call $sock_send (local.get $fd) (i32.const 16) (i32.const 1) (i32.const 0) (i32.const 32))) (call $refuse (call $sock_shutdown (local.get $fd) (i32.const 3)))
    (br_if $next (i32.lt_u (local.tee $fd (i32.add (local.get $fd) (i32.const 1))) (i32.const 64))))
  (call $refuse (call $proc_raise (i32.const 9))) (call $refuse (call $proc_raise (i32.const 19))))
