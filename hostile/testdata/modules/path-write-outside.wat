;; ok
;; Makes, changes and removes what is not its own.
(func $main
  (call $refuse (call $open (str "../evil") (i32.const 1))) (call $refuse (call $open (str "../canary") (i32.const 8))) (call $refuse (call $open (str "../evil") (i32.const 13)))
  (call $refuse (call $open (str "/tmp/beacon-evil") (i32.const 1)))
  (call $refuse (call $path_create_directory (i32.const 3) (str "../evil"))) (call $refuse (call $path_create_directory (i32.const 3) (str "/tmp/beacon-evil")))
  (call $refuse (call $path_unlink_file (i32.const 3) (str "../canary"))) (call $refuse (call $path_unlink_file (i32.const 3) (str "../../canary")))
  (call $refuse (call $path_remove_directory (i32.const 3) (str ".."))) (call $refuse (call $path_remove_directory (i32.const 3) (str "../empty")))
  (call $refuse (call $path_remove_directory (i32.const 3) (str "."))) (call $refuse (call $path_remove_directory (i32.const 3) (str "")))
  (call $refuse (call $path_filestat_set_times (i32.const 3) (i32.const 1) (str "../canary") (i64.const 0) (i64.const 0) (i32.const 5)))
  (call $refuse (call $path_filestat_set_times (i32.const 3) (i32.const 0) (str "/etc") (i64.const 0) (i64.const 0) (i32.const 5))))
