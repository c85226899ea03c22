;; ok
;; Calls somebody who never comes back, and ends before.
;; grants api
(func $main
  (call $must (call $call_open (str "{\22Capability\22:\22time-sleep\22}") (i32.const 32))) (call $must (call $call_open (str "{\22Capability\22:\22time-sleep\22}") (i32.const 32))))
