;; exit 5
;; Exits, and would go on.
(func $main (call $proc_exit (i32.const 5)) (call $proc_exit (i32.const 0)) (loop $again (br $again)))
