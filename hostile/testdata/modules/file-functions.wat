;; ok
;; Out of the directory by the functions of beacon_v1.
(func $main
  (call $refuse (call $file_open (str "../canary") (i32.const 1) (i32.const 32))) (call $refuse (call $file_open (str "/etc/passwd") (i32.const 1) (i32.const 32)))
  (call $refuse (call $file_open (str "/work/../canary") (i32.const 1) (i32.const 32))) (call $refuse (call $file_open (str "/work/../../etc/passwd") (i32.const 1) (i32.const 32)))
  (call $refuse (call $file_open (str "../evil") (i32.const 6) (i32.const 32))) (call $refuse (call $file_open (str "input.txt\00../canary") (i32.const 1) (i32.const 32)))
  (call $refuse (call $file_open (str "/work") (i32.const 2) (i32.const 32)))
  (call $refuse (call $file_open (str "x") (i32.const -1) (i32.const 32))) (call $refuse (call $file_open (str "x") (i32.const 0) (i32.const 32)))
  (call $refuse (call $file_list (str "..") (i32.const 4096) (i32.const 8192) (i32.const 32)))
  (call $refuse (call $file_list (str "/work/..") (i32.const 4096) (i32.const 8192) (i32.const 32))) (call $refuse (call $file_remove (str "../canary"))) (call $refuse (call $file_remove (str "")))
  (call $refuse (call $file_remove (str "/work"))) (call $refuse (call $file_remove (str "."))) (call $refuse (call $file_rename (str "../canary") (str "x")))
  (call $refuse (call $file_make_directory (str "../evil"))) (call $why))
