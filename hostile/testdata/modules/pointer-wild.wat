;; ok
;; Addresses outside of the memory, for every function that takes one.
(func $main
  (call $refuse (call $args_get (i32.const -1) (i32.const -1))) (call $refuse (call $args_sizes_get (i32.const -4) (i32.const -4))) (call $refuse (call $environ_get (i32.const -8) (i32.const 0)))
  (call $refuse (call $environ_sizes_get (i32.const 0) (i32.const 131070))) (call $refuse (call $clock_res_get (i32.const 0) (i32.const -7))) (call $refuse (call $clock_time_get (i32.const 0) (i64.const 0) (i32.const 131065)))
  (call $refuse (call $random_get (i32.const -1) (i32.const 1))) (call $refuse (call $random_get (i32.const 131071) (i32.const 2))) (call $refuse (call $random_get (i32.const 1) (i32.const -1)))
  (call $refuse (call $fd_fdstat_get (i32.const 3) (i32.const 131060))) (call $refuse (call $fd_filestat_get (i32.const 3) (i32.const 131010))) (call $refuse (call $fd_prestat_get (i32.const 3) (i32.const -1)))
  (call $refuse (call $fd_prestat_dir_name (i32.const 3) (i32.const -1) (i32.const 5))) (call $refuse (call $fd_readdir (i32.const 3) (i32.const -1) (i32.const 64) (i64.const 0) (i32.const 32)))
  (call $refuse (call $fd_readdir (i32.const 3) (i32.const 64) (i32.const -1) (i64.const 0) (i32.const 32))) (call $refuse (call $path_open (i32.const 3) (i32.const 0) (i32.const -1) (i32.const 5) (i32.const 0) (i64.const 2) (i64.const 0) (i32.const 0) (i32.const 32)))
  (call $refuse (call $path_open (i32.const 3) (i32.const 0) (str "x") (i32.const 1) (i64.const -1) (i64.const -1) (i32.const 0) (i32.const 131070))) (call $refuse (call $path_open (i32.const 3) (i32.const 0) (i32.const 131000) (i32.const 4096) (i32.const 0) (i64.const 2) (i64.const 0) (i32.const 0) (i32.const 32)))
  (call $refuse (call $work_item (i32.const -1) (i32.const 1) (i32.const 32))) (call $refuse (call $settings (i32.const 0) (i32.const -1) (i32.const 32))) (call $refuse (call $settings (i32.const 0) (i32.const 10) (i32.const -1)))
  (call $refuse (call $setting (i32.const -1) (i32.const -1) (i32.const 0) (i32.const 0) (i32.const 32))) (call $refuse (call $config (i32.const 0) (i32.const 1024) (i32.const 131072) (i32.const 1) (i32.const 32)))
  (call $refuse (call $progress (f64.const 1) (i32.const 0) (i32.const 0) (i32.const -1) (i32.const 4))) (call $refuse (call $log (i32.const 1) (i32.const -1) (i32.const 4))) (call $refuse (call $output (i32.const -1) (i32.const 4) (i32.const 0) (i32.const 4)))
  (call $refuse (call $output (str "N") (i32.const 131072) (i32.const 4))) (call $refuse (call $fail (i32.const 131071) (i32.const 4))) (call $refuse (call $remaining (i32.const -1))) (call $refuse (call $now (i32.const 0) (i32.const -1)))
  (call $refuse (call $random (i32.const -1) (i32.const 2))) (call $refuse (call $file_open (i32.const -1) (i32.const 4) (i32.const 1) (i32.const 32))) (call $refuse (call $file_list (str ".") (i32.const -1) (i32.const 4) (i32.const 32)))
  (call $refuse (call $handle_wait (i32.const -1) (i32.const 4) (i64.const 0) (i32.const 32))) (call $refuse (call $http_open (i32.const -1) (i32.const 4) (i32.const 32))) (call $refuse (call $call_open (i32.const -1) (i32.const 4) (i32.const 32)))
  (call $refuse (call $secret (i32.const -1) (i32.const 4))) (call $refuse (call $last_error (i32.const -1) (i32.const 4) (i32.const 32))))
