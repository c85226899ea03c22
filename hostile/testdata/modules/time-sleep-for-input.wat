;; timeout call_limit
;; Waits for standard input, and for output that has no room.
(func $main
  (i32.store8 (i32.const 1032) (i32.const 1)) (i32.store (i32.const 1040) (i32.const 0))
  (i32.store8 (i32.const 1080) (i32.const 2)) (i32.store (i32.const 1088) (i32.const 1))
  (loop $again
    (drop (call $poll_oneoff (i32.const 1024) (i32.const 2048) (i32.const 2) (i32.const 32))) (drop (call $poll_oneoff (i32.const 1024) (i32.const 2048) (i32.const 1) (i32.const 32)))
    (i32.store (i32.const 16) (i32.const 4096)) (i32.store (i32.const 20) (i32.const 4096)) (drop (call $fd_read (i32.const 0) (i32.const 16) (i32.const 1) (i32.const 24)))
    (br $again)))
