;; ok
;; Out of the item's directory from one inside of it, step by step.
(func $main (local $a i32)
  (call $must (call $path_create_directory (i32.const 3) (str "a")))
  (call $must (call $open (str "a") (i32.const 2))) (local.set $a (call $fd))
  (call $refuse (call $path_open (local.get $a) (i32.const 1) (str "../../canary") (i32.const 0) (i64.const 2) (i64.const 0) (i32.const 0) (i32.const 32)))
  (call $refuse (call $path_open (local.get $a) (i32.const 1) (str "../..") (i32.const 2) (i64.const -1) (i64.const -1) (i32.const 0) (i32.const 32)))
  (call $refuse (call $path_open (local.get $a) (i32.const 1) (str "..") (i32.const 2) (i64.const -1) (i64.const -1) (i32.const 0) (i32.const 32)))
  (call $refuse (call $path_open (local.get $a) (i32.const 1) (str "/etc") (i32.const 2) (i64.const -1) (i64.const -1) (i32.const 0) (i32.const 32))))
