;; file_limit
;; Directories without end.
(func $main (local $n i32)
  (loop $again
    (i32.store (i32.const 1024) (i32.add (i32.const 0x41414141) (local.get $n))) (local.set $n (i32.add (local.get $n) (i32.const 1)))
    (br_if $again (i32.eqz (call $path_create_directory (i32.const 3) (i32.const 1024) (i32.const 4)))))
  (call $proc_exit (i32.const 1)))
