;; file_limit
;; The same, and then it breaks down.
(func $main
  (call $must (call $file_open (str "big") (i32.const 6) (i32.const 32)))
  (loop $again
    (br_if $again (i32.eqz (call $file_write (call $fd) (i32.const 0) (i32.const 65536) (i32.const 24)))))
  (unreachable))
