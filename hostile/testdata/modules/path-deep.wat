;; file_limit
;; Directories in directories, deeper than is allowed.
(func $main (local $len i32)
  (memory.fill (i32.const 1024) (i32.const 97) (i32.const 8192))
  (loop $down
    (local.set $len (i32.add (local.get $len) (i32.const 2)))
    (i32.store8 (i32.add (i32.const 1024) (i32.sub (local.get $len) (i32.const 1))) (i32.const 47))
    (if (call $path_create_directory (i32.const 3) (i32.const 1024) (i32.sub (local.get $len) (i32.const 1))) (then (call $proc_exit (i32.const 1))))
    (br_if $down (i32.lt_u (local.get $len) (i32.const 4000)))))
