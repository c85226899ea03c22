;; ok
;; A million characters, each of which an encoder of JSON may make six of.
(memory (export "memory") 32)
(func $main
  (i32.store8 (i32.const 0x90000) (i32.const 0x22))
  (memory.fill (i32.const 0x90001) (i32.const 0x3c) (i32.const 1000000))
  (i32.store8 (i32.const 1589825) (i32.const 0x22))
  (drop (call $output (str "Angles") (i32.const 0x90000) (i32.const 1000002))))
