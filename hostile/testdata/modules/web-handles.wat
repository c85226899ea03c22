;; ok
;; Handles that are not what they are taken for.
;; grants api
(func $main (local $h i32)
  (call $must (call $request (str "Silent"))) (local.set $h (call $fd))
  (call $refuse (call $http_read (local.get $h) (i32.const 0) (i32.const 64) (i32.const 40))) (call $refuse (call $http_response (local.get $h) (i32.const 0) (i32.const 64) (i32.const 40)))
  (call $must (call $handle_close (local.get $h))) (call $must (call $request (str "Short"))) (local.set $h (call $fd))
  (call $refuse (call $call_wait (local.get $h))) (call $refuse (call $call_result (local.get $h) (i32.const 0) (i32.const 64) (i32.const 40))) (call $refuse (call $http_write (local.get $h) (i32.const 0) (i32.const 64) (i32.const 40)))
  (call $refuse (call $http_wait (i32.add (local.get $h) (i32.const 1)) (i32.const 44))) (call $must (call $http_wait (local.get $h) (i32.const 44))) (call $must (call $handle_close (local.get $h)))
  (call $refuse (call $handle_close (local.get $h))) (call $refuse (call $http_read (local.get $h) (i32.const 0) (i32.const 64) (i32.const 40))) (call $refuse (call $http_wait (local.get $h) (i32.const 44))))
