;; ok
;; Links that lead out, by every way there is to one, and then through them.
(func $main
  (call $refuse (call $path_symlink (str "../canary") (i32.const 3) (str "l1"))) (call $refuse (call $path_symlink (str "/etc/passwd") (i32.const 3) (str "l2")))
  (call $refuse (call $path_symlink (str "..") (i32.const 3) (str "l3"))) (call $refuse (call $path_symlink (str "input.txt") (i32.const 3) (str "l4")))
  (call $refuse (call $path_symlink (str "l5") (i32.const 3) (str "l5"))) (call $refuse (call $path_symlink (str "/proc/self/fd/0") (i32.const 3) (str "l6")))
  (call $refuse (call $path_symlink (str "canary") (i32.const 3) (str "../l7")))
  (call $peek (str "l1")) (call $peek (str "l2")) (call $peek (str "l3/canary")) (call $peek (str "l4")) (call $peek (str "l5")) (call $peek (str "l6")))
