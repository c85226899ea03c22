;; ok
;; Results on top of what they are results of.
(func $main
  (call $must (call $open (str "input.txt") (i32.const 0)))
  (i32.store (i32.const 16) (i32.const 16)) (i32.store (i32.const 20) (i32.const 8)) ;; the list is its own buffer
  (drop (call $fd_read (call $fd) (i32.const 16) (i32.const 1) (i32.const 16)))
  (i32.store (i32.const 16) (i32.const 16)) (i32.store (i32.const 20) (i32.const 65000))
  (drop (call $fd_read (call $fd) (i32.const 16) (i32.const 1) (i32.const 20)))
  (drop (call $fd_readdir (i32.const 3) (i32.const 0) (i32.const 4096) (i64.const 0) (i32.const 0)))
  (drop (call $args_get (i32.const 0) (i32.const 0))) (drop (call $environ_get (i32.const 4) (i32.const 0)))
  (drop (call $setting (i32.const 0) (i32.const 64) (i32.const 0) (i32.const 64) (i32.const 0)))
  (drop (call $settings (i32.const 0) (i32.const 65536) (i32.const 0))) (drop (call $work_item (i32.const 0) (i32.const 65536) (i32.const 2)))
  (drop (call $path_open (i32.const 3) (i32.const 0) (i32.const 0) (i32.const 64) (i32.const 1) (i64.const -1) (i64.const -1) (i32.const 0) (i32.const 0)))
  (drop (call $file_list (str ".") (i32.const 65536) (i32.const 4096) (i32.const 65536))) (drop (call $random_get (i32.const 0) (i32.const 65536))))
