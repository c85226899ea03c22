;; timeout
;; Waits for no handle at all, without end.
(func $main
  (loop $again (drop (call $handle_wait (i32.const 0) (i32.const 0) (i64.const -1) (i32.const 32))) (br $again)))
