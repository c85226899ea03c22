;; ok
;; Descriptors of the host, by number.
(func $main (local $fd i32)
  (i32.store (i32.const 16) (i32.const 4096)) (i32.store (i32.const 20) (i32.const 64))
  (local.set $fd (i32.const 5)) ;; 3 and 4 are the item's directory
  (loop $next
    (call $refuse (call $fd_read (local.get $fd) (i32.const 16) (i32.const 1) (i32.const 24))) (call $refuse (call $fd_write (local.get $fd) (i32.const 16) (i32.const 1) (i32.const 24)))
    (call $refuse (call $fd_filestat_get (local.get $fd) (i32.const 64))) (call $refuse (call $fd_close (local.get $fd)))
    (call $refuse (call $file_read (local.get $fd) (i32.const 4096) (i32.const 64) (i32.const 24))) (call $refuse (call $file_close (local.get $fd)))
    (br_if $next (i32.lt_u (local.tee $fd (i32.add (local.get $fd) (i32.const 1))) (i32.const 1100))))
  (call $refuse (call $fd_read (i32.const -1) (i32.const 16) (i32.const 1) (i32.const 24))) (call $refuse (call $fd_read (i32.const 0x7fffffff) (i32.const 16) (i32.const 1) (i32.const 24)))
  (call $refuse (call $fd_close (i32.const 0x80000000))) (call $refuse (call $file_read (i32.const -1) (i32.const 4096) (i32.const 64) (i32.const 24)))
  (call $refuse (call $file_read (i32.const 0) (i32.const 4096) (i32.const 64) (i32.const 24))) (call $refuse (call $handle_close (i32.const -1))) (call $refuse (call $handle_close (i32.const 3))))
