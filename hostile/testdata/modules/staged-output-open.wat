;; ok
;; An output that is still open for writing when it is taken away.
;; output
(func $main
  (call $must (call $open (str "out.bin") (i32.const 1))) (i32.store (i32.const 16) (i32.const 0)) (i32.store (i32.const 20) (i32.const 64))
  (call $must (call $fd_write (call $fd) (i32.const 16) (i32.const 1) (i32.const 24))))
