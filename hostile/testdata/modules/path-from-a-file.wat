;; ok
;; A file is no directory to begin at, and standard output neither.
(func $main
  (call $must (call $open (str "input.txt") (i32.const 0)))
  (call $refuse (call $path_open (call $fd) (i32.const 1) (str "../canary") (i32.const 0) (i64.const 2) (i64.const 0) (i32.const 0) (i32.const 36)))
  (call $refuse (call $path_open (call $fd) (i32.const 1) (str "..") (i32.const 2) (i64.const 2) (i64.const 0) (i32.const 0) (i32.const 36)))
  (call $refuse (call $path_open (call $fd) (i32.const 1) (str ".") (i32.const 0) (i64.const 2) (i64.const 0) (i32.const 0) (i32.const 36)))
  (call $refuse (call $path_open (i32.const 0) (i32.const 1) (str "canary") (i32.const 0) (i64.const 2) (i64.const 0) (i32.const 0) (i32.const 36)))
  (call $refuse (call $path_open (i32.const 1) (i32.const 1) (str "canary") (i32.const 0) (i64.const 2) (i64.const 0) (i32.const 0) (i32.const 36)))
  (call $refuse (call $path_open (i32.const -1) (i32.const 1) (str "canary") (i32.const 0) (i64.const 2) (i64.const 0) (i32.const 0) (i32.const 36))))
