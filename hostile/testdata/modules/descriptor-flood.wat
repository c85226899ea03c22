;; file_limit
;; As many open files as there can be.
(func $main
  (loop $more
    (br_if $more (i32.eqz (call $open (str "input.txt") (i32.const 0)))))
  (call $proc_exit (i32.const 1)))
