;; ok
;; Prints its environment, arguments, item, settings and configuration.
(func $main
  (call $must (call $environ_get (i32.const 1024) (i32.const 4096))) (call $print (i32.const 4096) (i32.const 4096))
  (call $must (call $args_get (i32.const 1024) (i32.const 16384))) (call $print (i32.const 16384) (i32.const 4096))
  (call $must (call $work_item (i32.const 32768) (i32.const 8192) (i32.const 32))) (call $print (i32.const 32768) (i32.load (i32.const 32)))
  (call $must (call $config (i32.const 0) (i32.const 0) (i32.const 32768) (i32.const 8192) (i32.const 32))) (call $print (i32.const 32768) (i32.load (i32.const 32))))
