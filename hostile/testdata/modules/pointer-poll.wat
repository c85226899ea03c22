;; ok
;; Subscriptions whose number times their size is a small number again.
(func $main
  (call $refuse (call $poll_oneoff (i32.const 0) (i32.const 4096) (i32.const 0x10000000) (i32.const 32))) (call $refuse (call $poll_oneoff (i32.const 0) (i32.const 4096) (i32.const 0x05555556) (i32.const 32)))
  (call $refuse (call $poll_oneoff (i32.const 0) (i32.const 4096) (i32.const -1) (i32.const 32))) (call $refuse (call $poll_oneoff (i32.const -48) (i32.const 4096) (i32.const 1) (i32.const 32)))
  (call $refuse (call $poll_oneoff (i32.const 0) (i32.const 131071) (i32.const 1) (i32.const 32))) (call $refuse (call $poll_oneoff (i32.const 0) (i32.const 4096) (i32.const 0) (i32.const 32)))
  (call $refuse (call $poll_oneoff (i32.const 0) (i32.const 4096) (i32.const 65) (i32.const 32))))
