;; What the modules of this folder are made with. TestModulesAreCurrent puts what
;; a module mentions of it before the module's own text, and (str "…") becomes the
;; place and the length of that text in the memory.

(import "wasi_snapshot_preview1" "args_get" (func $args_get (param i32 i32) (result i32)))

(import "wasi_snapshot_preview1" "args_sizes_get" (func $args_sizes_get (param i32 i32) (result i32)))

(import "wasi_snapshot_preview1" "environ_get" (func $environ_get (param i32 i32) (result i32)))

(import "wasi_snapshot_preview1" "environ_sizes_get" (func $environ_sizes_get (param i32 i32) (result i32)))

(import "wasi_snapshot_preview1" "clock_res_get" (func $clock_res_get (param i32 i32) (result i32)))

(import "wasi_snapshot_preview1" "clock_time_get" (func $clock_time_get (param i32 i64 i32) (result i32)))

(import "wasi_snapshot_preview1" "poll_oneoff" (func $poll_oneoff (param i32 i32 i32 i32) (result i32)))

(import "wasi_snapshot_preview1" "sched_yield" (func $sched_yield (result i32)))

(import "wasi_snapshot_preview1" "random_get" (func $random_get (param i32 i32) (result i32)))

(import "wasi_snapshot_preview1" "proc_exit" (func $proc_exit (param i32)))

(import "wasi_snapshot_preview1" "proc_raise" (func $proc_raise (param i32) (result i32)))

(import "wasi_snapshot_preview1" "fd_advise" (func $fd_advise (param i32 i64 i64 i32) (result i32)))

(import "wasi_snapshot_preview1" "fd_allocate" (func $fd_allocate (param i32 i64 i64) (result i32)))

(import "wasi_snapshot_preview1" "fd_close" (func $fd_close (param i32) (result i32)))

(import "wasi_snapshot_preview1" "fd_datasync" (func $fd_datasync (param i32) (result i32)))

(import "wasi_snapshot_preview1" "fd_fdstat_get" (func $fd_fdstat_get (param i32 i32) (result i32)))

(import "wasi_snapshot_preview1" "fd_fdstat_set_flags" (func $fd_fdstat_set_flags (param i32 i32) (result i32)))

(import "wasi_snapshot_preview1" "fd_fdstat_set_rights" (func $fd_fdstat_set_rights (param i32 i64 i64) (result i32)))

(import "wasi_snapshot_preview1" "fd_filestat_get" (func $fd_filestat_get (param i32 i32) (result i32)))

(import "wasi_snapshot_preview1" "fd_filestat_set_size" (func $fd_filestat_set_size (param i32 i64) (result i32)))

(import "wasi_snapshot_preview1" "fd_filestat_set_times" (func $fd_filestat_set_times (param i32 i64 i64 i32) (result i32)))

(import "wasi_snapshot_preview1" "fd_pread" (func $fd_pread (param i32 i32 i32 i64 i32) (result i32)))

(import "wasi_snapshot_preview1" "fd_prestat_get" (func $fd_prestat_get (param i32 i32) (result i32)))

(import "wasi_snapshot_preview1" "fd_prestat_dir_name" (func $fd_prestat_dir_name (param i32 i32 i32) (result i32)))

(import "wasi_snapshot_preview1" "fd_pwrite" (func $fd_pwrite (param i32 i32 i32 i64 i32) (result i32)))

(import "wasi_snapshot_preview1" "fd_read" (func $fd_read (param i32 i32 i32 i32) (result i32)))

(import "wasi_snapshot_preview1" "fd_readdir" (func $fd_readdir (param i32 i32 i32 i64 i32) (result i32)))

(import "wasi_snapshot_preview1" "fd_renumber" (func $fd_renumber (param i32 i32) (result i32)))

(import "wasi_snapshot_preview1" "fd_seek" (func $fd_seek (param i32 i64 i32 i32) (result i32)))

(import "wasi_snapshot_preview1" "fd_sync" (func $fd_sync (param i32) (result i32)))

(import "wasi_snapshot_preview1" "fd_tell" (func $fd_tell (param i32 i32) (result i32)))

(import "wasi_snapshot_preview1" "fd_write" (func $fd_write (param i32 i32 i32 i32) (result i32)))

(import "wasi_snapshot_preview1" "path_create_directory" (func $path_create_directory (param i32 i32 i32) (result i32)))

(import "wasi_snapshot_preview1" "path_filestat_get" (func $path_filestat_get (param i32 i32 i32 i32 i32) (result i32)))

(import "wasi_snapshot_preview1" "path_filestat_set_times" (func $path_filestat_set_times (param i32 i32 i32 i32 i64 i64 i32) (result i32)))

(import "wasi_snapshot_preview1" "path_link" (func $path_link (param i32 i32 i32 i32 i32 i32 i32) (result i32)))

(import "wasi_snapshot_preview1" "path_open" (func $path_open (param i32 i32 i32 i32 i32 i64 i64 i32 i32) (result i32)))

(import "wasi_snapshot_preview1" "path_readlink" (func $path_readlink (param i32 i32 i32 i32 i32 i32) (result i32)))

(import "wasi_snapshot_preview1" "path_remove_directory" (func $path_remove_directory (param i32 i32 i32) (result i32)))

(import "wasi_snapshot_preview1" "path_rename" (func $path_rename (param i32 i32 i32 i32 i32 i32) (result i32)))

(import "wasi_snapshot_preview1" "path_symlink" (func $path_symlink (param i32 i32 i32 i32 i32) (result i32)))

(import "wasi_snapshot_preview1" "path_unlink_file" (func $path_unlink_file (param i32 i32 i32) (result i32)))

(import "wasi_snapshot_preview1" "sock_accept" (func $sock_accept (param i32 i32 i32) (result i32)))

(import "wasi_snapshot_preview1" "sock_recv" (func $sock_recv (param i32 i32 i32 i32 i32 i32) (result i32)))

(import "wasi_snapshot_preview1" "sock_send" (func $sock_send (param i32 i32 i32 i32 i32) (result i32)))

(import "wasi_snapshot_preview1" "sock_shutdown" (func $sock_shutdown (param i32 i32) (result i32)))

(import "beacon_v1" "work_item" (func $work_item (param i32 i32 i32) (result i32)))

(import "beacon_v1" "settings" (func $settings (param i32 i32 i32) (result i32)))

(import "beacon_v1" "setting" (func $setting (param i32 i32 i32 i32 i32) (result i32)))

(import "beacon_v1" "config" (func $config (param i32 i32 i32 i32 i32) (result i32)))

(import "beacon_v1" "progress" (func $progress (param f64 i32 i32 i32 i32) (result i32)))

(import "beacon_v1" "log" (func $log (param i32 i32 i32) (result i32)))

(import "beacon_v1" "output" (func $output (param i32 i32 i32 i32) (result i32)))

(import "beacon_v1" "fail" (func $fail (param i32 i32) (result i32)))

(import "beacon_v1" "describe" (func $describe (param i32 i32) (result i32)))

(import "beacon_v1" "last_error" (func $last_error (param i32 i32 i32) (result i32)))

(import "beacon_v1" "remaining" (func $remaining (param i32) (result i32)))

(import "beacon_v1" "cancelled" (func $cancelled (result i32)))

(import "beacon_v1" "now" (func $now (param i32 i32) (result i32)))

(import "beacon_v1" "random" (func $random (param i32 i32) (result i32)))

(import "beacon_v1" "file_open" (func $file_open (param i32 i32 i32 i32) (result i32)))

(import "beacon_v1" "file_read" (func $file_read (param i32 i32 i32 i32) (result i32)))

(import "beacon_v1" "file_write" (func $file_write (param i32 i32 i32 i32) (result i32)))

(import "beacon_v1" "file_seek" (func $file_seek (param i32 i64 i32 i32) (result i32)))

(import "beacon_v1" "file_size" (func $file_size (param i32 i32) (result i32)))

(import "beacon_v1" "file_close" (func $file_close (param i32) (result i32)))

(import "beacon_v1" "file_list" (func $file_list (param i32 i32 i32 i32 i32) (result i32)))

(import "beacon_v1" "file_remove" (func $file_remove (param i32 i32) (result i32)))

(import "beacon_v1" "file_rename" (func $file_rename (param i32 i32 i32 i32) (result i32)))

(import "beacon_v1" "file_make_directory" (func $file_make_directory (param i32 i32) (result i32)))

(import "beacon_v1" "handle_wait" (func $handle_wait (param i32 i32 i64 i32) (result i32)))

(import "beacon_v1" "handle_close" (func $handle_close (param i32) (result i32)))

(import "beacon_v1" "http_open" (func $http_open (param i32 i32 i32) (result i32)))

(import "beacon_v1" "http_write" (func $http_write (param i32 i32 i32 i32) (result i32)))

(import "beacon_v1" "http_wait" (func $http_wait (param i32 i32) (result i32)))

(import "beacon_v1" "http_response" (func $http_response (param i32 i32 i32 i32) (result i32)))

(import "beacon_v1" "http_header" (func $http_header (param i32 i32 i32 i32 i32 i32) (result i32)))

(import "beacon_v1" "http_read" (func $http_read (param i32 i32 i32 i32) (result i32)))

(import "beacon_v1" "call_open" (func $call_open (param i32 i32 i32) (result i32)))

(import "beacon_v1" "call_progress" (func $call_progress (param i32 i32 i32 i32) (result i32)))

(import "beacon_v1" "call_wait" (func $call_wait (param i32) (result i32)))

(import "beacon_v1" "call_result" (func $call_result (param i32 i32 i32 i32) (result i32)))

(import "beacon_v1" "call_output" (func $call_output (param i32 i32 i32 i32 i32 i32) (result i32)))

(import "beacon_v1" "secret" (func $secret (param i32 i32) (result i32)))

(memory (export "memory") 2)

(global $step (mut i32) (i32.const 0))

;; What must not succeed. The exit code says which attempt did.
(func $refuse (param $errno i32)
  (global.set $step (i32.add (global.get $step) (i32.const 1)))
  (if (i32.eqz (local.get $errno)) (then (call $proc_exit (i32.add (i32.const 100000) (global.get $step))))))

;; What must succeed, for the attempts after it to be any.
(func $must (param $errno i32)
  (global.set $step (i32.add (global.get $step) (i32.const 1)))
  (if (local.get $errno) (then (call $proc_exit (i32.add (i32.const 200000) (global.get $step))))))

(func $print (param $at i32) (param $len i32)
  (i32.store (i32.const 16) (local.get $at)) (i32.store (i32.const 20) (local.get $len))
  (drop (call $fd_write (i32.const 1) (i32.const 16) (i32.const 1) (i32.const 24))))

;; Opens a name for everything; $fd is the descriptor.
(func $open (param $path i32) (param $len i32) (param $flags i32) (result i32)
  (call $path_open (i32.const 3) (i32.const 1) (local.get $path) (local.get $len) (local.get $flags)
    (select (i64.const 2) (i64.const 0x1fffffff) (i32.eqz (local.get $flags))) (i64.const 0x1fffffff) (i32.const 0) (i32.const 32)))

(func $fd (result i32) (i32.load (i32.const 32)))

;; Prints the beginning of a file.
(func $show (param $fd i32)
  (i32.store (i32.const 16) (i32.const 4096)) (i32.store (i32.const 20) (i32.const 4096))
  (drop (call $fd_read (local.get $fd) (i32.const 16) (i32.const 1) (i32.const 24)))
  (call $print (i32.const 4096) (i32.load (i32.const 24))))

;; Reads what there must not be under a name.
(func $peek (param $path i32) (param $len i32)
  (if (i32.eqz (call $open (local.get $path) (local.get $len) (i32.const 0))) (then (call $show (call $fd)) (call $refuse (i32.const 0))))
  (if (i32.eqz (call $open (local.get $path) (local.get $len) (i32.const 2))) (then (call $refuse (i32.const 0))))
  (call $refuse (call $path_filestat_get (i32.const 3) (i32.const 1) (local.get $path) (local.get $len) (i32.const 64))))

;; Reads and writes under a name where nothing can be.
(func $steal (param $path i32) (param $len i32)
  (call $peek (local.get $path) (local.get $len))
  (call $refuse (call $open (local.get $path) (local.get $len) (i32.const 1)))
  (call $refuse (call $open (local.get $path) (local.get $len) (i32.const 9)))
  (call $refuse (call $open (local.get $path) (local.get $len) (i32.const 5)))
  (call $refuse (call $path_create_directory (i32.const 3) (local.get $path) (local.get $len)))
  (call $refuse (call $path_unlink_file (i32.const 3) (local.get $path) (local.get $len)))
  (call $refuse (call $path_remove_directory (i32.const 3) (local.get $path) (local.get $len))))

;; Prints what the host says about the last error.
(func $why
  (if (i32.eqz (call $last_error (i32.const 16384) (i32.const 8192) (i32.const 40))) (then (call $print (i32.const 16384) (i32.load (i32.const 40))))))

;; Sends the request that is the setting of that name.
(func $request (param $name i32) (param $len i32) (result i32)
  (call $must (call $setting (local.get $name) (local.get $len) (i32.const 8192) (i32.const 8192) (i32.const 40)))
  (call $http_open (i32.const 8192) (i32.load (i32.const 40)) (i32.const 32)))

;; The same, and prints what comes back.
(func $ask (param $name i32) (param $len i32) (result i32)
  (call $answer (call $request (local.get $name) (local.get $len))))

;; Asks for a URL and prints what comes back.
(func $get (param $url i32) (param $len i32) (result i32)
  (memory.copy (i32.const 8192) (str "{\22URL\22:\22"))
  (memory.copy (i32.const 8200) (local.get $url) (local.get $len))
  (i32.store16 (i32.add (i32.const 8200) (local.get $len)) (i32.const 0x7d22))
  (call $answer (call $http_open (i32.const 8192) (i32.add (i32.const 10) (local.get $len)) (i32.const 32))))

(func $answer (param $errno i32) (result i32)
  (if (i32.eqz (local.get $errno)) (then
    (local.set $errno (call $http_wait (call $fd) (i32.const 44)))
    (if (i32.eqz (local.get $errno)) (then
      (drop (call $http_response (call $fd) (i32.const 16384) (i32.const 16384) (i32.const 40)))
      (call $print (i32.const 16384) (i32.load (i32.const 40)))
      (loop $more
        (if (i32.eqz (call $http_read (call $fd) (i32.const 16384) (i32.const 16384) (i32.const 40))) (then
          (if (i32.load (i32.const 40)) (then (call $print (i32.const 16384) (i32.load (i32.const 40))) (br $more))))))))
    (if (local.get $errno) (then (call $why)))
    (drop (call $handle_close (call $fd)))
    (return (local.get $errno))))
  (call $why)
  (local.get $errno))

;; Calls another capability and prints what comes back.
(func $invoke (param $json i32) (param $len i32) (result i32) (local $errno i32)
  (if (local.tee $errno (call $call_open (local.get $json) (local.get $len) (i32.const 32))) (then (call $why) (return (local.get $errno))))
  (local.set $errno (call $call_wait (call $fd)))
  (if (local.get $errno) (then (call $why)))
  (if (i32.eqz (call $call_result (call $fd) (i32.const 16384) (i32.const 16384) (i32.const 40))) (then (call $print (i32.const 16384) (i32.load (i32.const 40)))))
  (drop (call $handle_close (call $fd)))
  (local.get $errno))
