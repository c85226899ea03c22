;; ok
;; Something else in the source's place.
(func $main
  (call $must (call $open (str "mine") (i32.const 1)))
  (call $refuse (call $path_rename (i32.const 3) (str "mine") (i32.const 3) (str "input.txt"))) (call $refuse (call $path_rename (i32.const 3) (str "input.txt") (i32.const 3) (str "other")))
  (call $refuse (call $path_unlink_file (i32.const 3) (str "input.txt"))) (call $refuse (call $path_remove_directory (i32.const 3) (str "input.txt")))
  (call $refuse (call $path_create_directory (i32.const 3) (str "input.txt"))) (call $refuse (call $path_filestat_set_times (i32.const 3) (i32.const 0) (str "input.txt") (i64.const 0) (i64.const 0) (i32.const 5)))
  (call $refuse (call $file_open (str "input.txt") (i32.const 2) (i32.const 32))) (call $refuse (call $file_open (str "input.txt") (i32.const 13) (i32.const 32)))
  (call $refuse (call $file_remove (str "input.txt"))) (call $refuse (call $file_rename (str "mine") (str "input.txt"))) (call $refuse (call $file_rename (str "input.txt") (str "x"))))
