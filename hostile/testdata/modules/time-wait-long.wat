;; timeout
;; Waits for no handle at all, until the end of time.
(func $main
  (loop $again (drop (call $handle_wait (i32.const 0) (i32.const 0) (i64.const 0x7fffffffffffffff) (i32.const 32))) (br $again)))
