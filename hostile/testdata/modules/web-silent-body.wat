;; timeout
;; A server that is sent a body that does not come.
;; grants api
(func $main
  (call $must (call $request (str "Upload")))
  (drop (call $handle_wait (i32.const 32) (i32.const 4) (i64.const -1) (i32.const 40))) (loop $again (br $again)))
