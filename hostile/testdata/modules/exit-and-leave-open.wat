;; ok
;; Leaves open what it can.
;; grants open
(func $main
  (call $must (call $open (str "a") (i32.const 1))) (call $must (call $open (str "input.txt") (i32.const 0))) (call $must (call $file_open (str "b") (i32.const 6) (i32.const 32)))
  (call $must (call $path_create_directory (i32.const 3) (str "d"))) (call $must (call $open (str "d") (i32.const 2)))
  (call $must (call $http_open (str "{\22URL\22:\22http://10.0.0.1/\22}") (i32.const 32))) (call $must (call $call_open (str "{\22Capability\22:\22Shell\22}") (i32.const 32)))
  (call $proc_exit (i32.const 0)))
