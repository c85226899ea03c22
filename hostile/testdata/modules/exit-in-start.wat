;; failed trapped exit 4
;; Exits before it has begun.
(func $early (call $proc_exit (i32.const 4)))
(start $early)
(func $main)
