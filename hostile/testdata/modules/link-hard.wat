;; ok
;; Other names for what is outside, for the source, and for a directory.
(func $main
  (call $must (call $path_create_directory (i32.const 3) (str "d")))
  (call $refuse (call $path_link (i32.const 3) (i32.const 0) (str "../canary") (i32.const 3) (str "h1"))) (call $refuse (call $path_link (i32.const 3) (i32.const 1) (str "/etc/passwd") (i32.const 3) (str "h2")))
  (call $refuse (call $path_link (i32.const 3) (i32.const 0) (str "input.txt") (i32.const 3) (str "h3"))) (call $refuse (call $path_link (i32.const 3) (i32.const 0) (str "input.txt") (i32.const 3) (str "../h4")))
  (call $refuse (call $path_link (i32.const 3) (i32.const 0) (str "d") (i32.const 3) (str "h5"))) (call $peek (str "h1")) (call $peek (str "h2")) (call $peek (str "h3")) (call $peek (str "h5")))
