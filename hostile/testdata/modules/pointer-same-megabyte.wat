;; output_limit
;; One call that hands over the same memory a thousand times.
(func $main (local $n i32)
  (loop $next
    (i64.store (i32.add (i32.const 1024) (i32.mul (local.get $n) (i32.const 8))) (i64.const 0x1000000000000))
    (br_if $next (i32.lt_u (local.tee $n (i32.add (local.get $n) (i32.const 1))) (i32.const 1024))))
  (loop $again
    (drop (call $fd_write (i32.const 1) (i32.const 1024) (i32.const 1024) (i32.const 24)))
    (br $again)))
