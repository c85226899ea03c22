;; timeout
;; Cancels somebody who does not want to hear of it, just before its own time is over.
;; grants api
(func $main
  (call $must (call $call_open (str "{\22Capability\22:\22deaf\22}") (i32.const 32)))
  (call $must (call $handle_wait (i32.const 0) (i32.const 0) (i64.const 30) (i32.const 40)))
  (drop (call $handle_close (call $fd))) (loop $again (br $again)))
