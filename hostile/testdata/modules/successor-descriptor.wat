;; ok
;; Leaves descriptors and handles for the next item, and has none.
;; grants open
(func $main
  (call $refuse (call $fd_close (i32.const 5))) (call $refuse (call $fd_close (i32.const 9))) (call $refuse (call $file_close (i32.const 1))) (call $refuse (call $file_close (i32.const 3))) (call $refuse (call $handle_close (i32.const 1)))
  (call $must (call $open (str "a") (i32.const 1))) (call $must (call $fd_renumber (call $fd) (i32.const 1))) (call $must (call $open (str "b") (i32.const 1))) (call $must (call $file_open (str "c") (i32.const 6) (i32.const 32)))
  (call $must (call $http_open (str "{\22URL\22:\22http://10.0.0.1/\22}") (i32.const 32))) (drop (call $fd_close (i32.const 3))) (drop (call $fd_close (i32.const 0))))
