;; file_limit
;; The same by beacon_v1, in directories of WASI's.
(func $main
  (loop $more
    (br_if $more (i32.eqz (call $file_open (str "input.txt") (i32.const 1) (i32.const 32)))))
  (call $refuse (call $open (str "input.txt") (i32.const 0)))
  (call $proc_exit (i32.const 1)))
