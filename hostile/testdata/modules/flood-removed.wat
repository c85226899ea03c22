;; file_limit
;; Files that are removed while they are open still take room.
(func $main (local $n i32)
  (loop $again
    (if (call $open (str "gone") (i32.const 5)) (then (call $proc_exit (i32.const 1))))
    (i32.store (i32.const 16) (i32.const 0)) (i32.store (i32.const 20) (i32.const 131072))
    (loop $fill
      (drop (call $fd_write (call $fd) (i32.const 16) (i32.const 1) (i32.const 24)))
      (br_if $fill (i32.lt_u (local.tee $n (i32.add (local.get $n) (i32.const 1))) (i32.const 8))))
    (local.set $n (i32.const 0))
    (call $must (call $path_unlink_file (i32.const 3) (str "gone")))
    (br $again)))
