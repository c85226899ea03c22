;; ok
;; Leaves files for the next item.
(func $main
  (call $peek (str "left")) (call $peek (str "d/left")) (call $peek (str "/tmp/left")) (call $refuse (call $path_filestat_get (i32.const 3) (i32.const 0) (str "d") (i32.const 64)))
  (call $must (call $open (str "left") (i32.const 1))) (call $print_to (call $fd)) (call $must (call $path_create_directory (i32.const 3) (str "d"))) (call $must (call $open (str "d/left") (i32.const 1))) (call $print_to (call $fd))
  (call $must (call $file_open (str "left2") (i32.const 38) (i32.const 32))))
(func $print_to (param $fd i32)
  (i32.store (i32.const 16) (i32.const 0)) (i32.store (i32.const 20) (i32.const 64)) (call $must (call $fd_write (local.get $fd) (i32.const 16) (i32.const 1) (i32.const 24))))
