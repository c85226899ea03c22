;; timeout call_limit
;; Sleeps until a time that does not come, or has gone by.
(func $main
  (i32.store8 (i32.const 1032) (i32.const 0)) (i32.store (i32.const 1040) (i32.const 0)) (i64.store (i32.const 1048) (i64.const -1)) (i32.store16 (i32.const 1064) (i32.const 1))
  (loop $again (drop (call $poll_oneoff (i32.const 1024) (i32.const 2048) (i32.const 1) (i32.const 32))) (br $again)))
