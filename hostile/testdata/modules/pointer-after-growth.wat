;; ok
;; The memory moves between the calls that point into it.
(func $main (local $n i32)
  (loop $more
    (call $must (call $open (str "input.txt") (i32.const 0)))
    (drop (memory.grow (i32.const 1)))
    (i32.store (i32.const 16) (i32.sub (i32.mul (memory.size) (i32.const 65536)) (i32.const 16))) (i32.store (i32.const 20) (i32.const 16))
    (call $must (call $fd_pread (call $fd) (i32.const 16) (i32.const 1) (i64.const 0) (i32.const 24)))
    (i32.store (i32.const 20) (i32.const 17))
    (call $refuse (call $fd_pread (call $fd) (i32.const 16) (i32.const 1) (i64.const 0) (i32.const 24)))
    (call $must (call $fd_close (call $fd)))
    (br_if $more (i32.lt_u (local.tee $n (i32.add (local.get $n) (i32.const 1))) (i32.const 50)))))
