;; call_limit
;; A file to and fro.
(func $main
  (call $must (call $open (str "x") (i32.const 1)))
  (loop $again
    (call $must (call $path_rename (i32.const 3) (str "x") (i32.const 3) (str "y"))) (call $must (call $path_rename (i32.const 3) (str "y") (i32.const 3) (str "x")))
    (br $again)))
