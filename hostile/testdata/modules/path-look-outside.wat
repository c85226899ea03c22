;; ok
;; Asks what there is.
(func $main
  (call $refuse (call $path_filestat_get (i32.const 3) (i32.const 1) (str "../canary") (i32.const 64))) (call $refuse (call $path_filestat_get (i32.const 3) (i32.const 0) (str "../canary") (i32.const 64)))
  (call $refuse (call $path_filestat_get (i32.const 3) (i32.const 1) (str "..") (i32.const 64))) (call $refuse (call $path_filestat_get (i32.const 3) (i32.const 1) (str "/") (i32.const 64)))
  (call $refuse (call $path_filestat_get (i32.const 3) (i32.const 1) (str "/etc/passwd") (i32.const 64)))
  (call $refuse (call $path_readlink (i32.const 3) (str "/proc/self/exe") (i32.const 4096) (i32.const 4096) (i32.const 32)))
  (call $refuse (call $path_readlink (i32.const 3) (str "input.txt") (i32.const 4096) (i32.const 4096) (i32.const 32)))
  (call $refuse (call $path_readlink (i32.const 3) (str "../canary") (i32.const 4096) (i32.const 4096) (i32.const 32)))
  (call $refuse (call $path_readlink (i32.const 3) (str ".") (i32.const 4096) (i32.const 4096) (i32.const 32))))
