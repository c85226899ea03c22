;; ok
;; The same, read one byte at a time.
;; grants api
(func $main
  (call $must (call $request (str "Echo"))) (call $must (call $http_wait (call $fd) (i32.const 44)))
  (loop $again
    (call $must (call $http_read (call $fd) (i32.const 1024) (i32.const 1) (i32.const 40)))
    (if (i32.load (i32.const 40)) (then (call $print (i32.const 1024) (i32.const 1)) (br $again)))))
