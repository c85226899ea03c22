;; ok
;; A directory that is open while it is moved up: what was above it is not any more.
(func $main (local $b i32)
  (call $must (call $path_create_directory (i32.const 3) (str "a")))
  (call $must (call $path_create_directory (i32.const 3) (str "a/b")))
  (call $must (call $open (str "a/b") (i32.const 2))) (local.set $b (call $fd))
  (call $must (call $path_rename (i32.const 3) (str "a/b") (i32.const 3) (str "c")))
  (call $refuse (call $path_open (local.get $b) (i32.const 1) (str "../../canary") (i32.const 0) (i64.const 2) (i64.const 0) (i32.const 0) (i32.const 32)))
  (call $refuse (call $path_open (local.get $b) (i32.const 1) (str "../canary") (i32.const 0) (i64.const 2) (i64.const 0) (i32.const 0) (i32.const 32)))
  (call $must (call $path_remove_directory (i32.const 3) (str "c")))
  (call $refuse (call $path_open (local.get $b) (i32.const 1) (str "new") (i32.const 1) (i64.const -1) (i64.const -1) (i32.const 0) (i32.const 32)))
  (call $refuse (call $path_create_directory (local.get $b) (str "new"))))
