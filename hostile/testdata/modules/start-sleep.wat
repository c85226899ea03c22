;; timeout failed trapped
;; Sleeps before it has begun.
(func $early
  (i32.store (i32.const 1040) (i32.const 1)) (i64.store (i32.const 1048) (i64.const 0x7fffffffffffffff))
  (loop $again (drop (call $poll_oneoff (i32.const 1024) (i32.const 2048) (i32.const 1) (i32.const 32))) (br $again)))
(start $early)
(func $main)
