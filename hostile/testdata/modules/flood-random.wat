;; call_limit timeout
;; Random bytes without end.
(func $main
  (loop $again (drop (call $random_get (i32.const 0) (i32.const 1024))) (drop (call $random (i32.const 0) (i32.const 1024))) (br $again)))
