;; file_limit
;; Files without end, of nothing.
(func $main (local $n i32)
  (loop $again
    (i32.store (i32.const 1024) (i32.add (i32.const 0x41414141) (local.get $n))) (local.set $n (i32.add (local.get $n) (i32.const 1)))
    (if (i32.eqz (call $open (i32.const 1024) (i32.const 4) (i32.const 1))) (then (call $must (call $fd_close (call $fd))) (br $again))))
  (call $proc_exit (i32.const 1)))
