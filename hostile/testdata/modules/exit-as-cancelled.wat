;; exit -1
;; And one that it takes for a cancellation.
(func $main (call $proc_exit (i32.const 0xffffffff)))
