;; ok
;; Leaves the text of an error, an output and a line that has no end.
(func $main
  (call $refuse (call $last_error (i32.const 4096) (i32.const 4096) (i32.const 32)))
  (drop (call $output (str "Left") (str "\22behind\22"))) (drop (call $fail (str "left behind"))) (drop (call $file_open (str "../canary") (i32.const 1) (i32.const 32)))
  (i32.store (i32.const 16) (i32.const 0)) (i32.store (i32.const 20) (i32.const 10)) (drop (call $fd_write (i32.const 2) (i32.const 16) (i32.const 1) (i32.const 24))))
