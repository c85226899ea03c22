;; ok
;; Moves something out, and something in.
(func $main
  (call $must (call $open (str "mine") (i32.const 1)))
  (call $must (call $path_create_directory (i32.const 3) (str "d")))
  (call $refuse (call $path_rename (i32.const 3) (str "mine") (i32.const 3) (str "../mine"))) (call $refuse (call $path_rename (i32.const 3) (str "mine") (i32.const 3) (str "/tmp/mine")))
  (call $refuse (call $path_rename (i32.const 3) (str "../canary") (i32.const 3) (str "got"))) (call $refuse (call $path_rename (i32.const 3) (str "/etc/passwd") (i32.const 3) (str "got")))
  (call $refuse (call $path_rename (i32.const 3) (str "d") (i32.const 3) (str "../d"))) (call $refuse (call $path_rename (i32.const 3) (str "d") (i32.const 3) (str "d/e")))
  (call $refuse (call $path_rename (i32.const 3) (str ".") (i32.const 3) (str "x"))) (call $refuse (call $path_rename (i32.const 3) (str "d") (i32.const 3) (str ".")))
  (call $refuse (call $path_rename (i32.const 3) (str "..") (i32.const 3) (str "x"))) (call $refuse (call $path_rename (i32.const 3) (str "") (i32.const 3) (str "x")))
  (call $refuse (call $path_rename (i32.const 3) (str "mine") (i32.const 1) (str "x"))) (call $refuse (call $path_rename (i32.const 77) (str "mine") (i32.const 3) (str "x"))))
