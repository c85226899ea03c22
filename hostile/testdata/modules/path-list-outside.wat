;; ok
;; Lists the item's directory, which has nothing above it, and prints all there is.
(func $main
  (call $must (call $fd_readdir (i32.const 3) (i32.const 4096) (i32.const 8192) (i64.const 0) (i32.const 32)))
  (call $print (i32.const 4096) (i32.load (i32.const 32)))
  (call $must (call $fd_prestat_get (i32.const 3) (i32.const 64)))
  (call $must (call $fd_prestat_dir_name (i32.const 3) (i32.const 4096) (i32.load (i32.const 68))))
  (call $print (i32.const 4096) (i32.load (i32.const 68)))
  (call $refuse (call $fd_prestat_get (i32.const 5) (i32.const 64))) (call $refuse (call $fd_prestat_get (i32.const 0) (i32.const 64)))
  (call $refuse (call $fd_readdir (i32.const 0) (i32.const 4096) (i32.const 8192) (i64.const 0) (i32.const 32)))
  (call $must (call $fd_filestat_get (i32.const 3) (i32.const 4096)))
  (call $print (i32.const 4096) (i32.const 64)))
