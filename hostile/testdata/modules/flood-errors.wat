;; call_limit
;; Standard error without end, in one line.
(func $main
  (i32.store (i32.const 16) (i32.const 1024)) (i32.store (i32.const 20) (i32.const 4096))
  (loop $again (drop (call $fd_write (i32.const 2) (i32.const 16) (i32.const 1) (i32.const 24))) (br $again)))
