;; ok
;; A clock that is finer than a millisecond.
(func $main (local $n i32)
  (loop $again
    (call $must (call $clock_time_get (i32.const 1) (i64.const 1) (i32.const 32))) (call $must (i64.ne (i64.const 0) (i64.rem_u (i64.load (i32.const 32)) (i64.const 1000000))))
    (call $must (call $clock_time_get (i32.const 0) (i64.const 1) (i32.const 32))) (call $must (i64.ne (i64.const 0) (i64.rem_u (i64.load (i32.const 32)) (i64.const 1000000))))
    (call $must (call $now (i32.const 1) (i32.const 32))) (call $must (i64.ne (i64.const 0) (i64.rem_u (i64.load (i32.const 32)) (i64.const 1000000))))
    (br_if $again (i32.lt_u (local.tee $n (i32.add (local.get $n) (i32.const 1))) (i32.const 100))))
  (call $refuse (call $clock_time_get (i32.const 9) (i64.const 1) (i32.const 32))) (call $refuse (call $now (i32.const 9) (i32.const 32))))
