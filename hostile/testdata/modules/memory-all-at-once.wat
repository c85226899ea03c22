;; memory_limit
(func $main
  (if (i32.eq (memory.grow (i32.const 65000)) (i32.const -1)) (then (call $proc_exit (i32.const 1)))))
