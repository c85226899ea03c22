;; trapped
;; Breaks down in the middle of everything.
;; grants open
(func $main
  (call $must (call $open (str "a") (i32.const 1))) (call $must (call $file_open (str "b") (i32.const 6) (i32.const 32)))
  (call $must (call $http_open (str "{\22URL\22:\22http://10.0.0.1/\22,\22Method\22:\22POST\22,\22BodyLength\22:-1}") (i32.const 32)))
  (unreachable))
