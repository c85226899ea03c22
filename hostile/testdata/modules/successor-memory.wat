;; ok
;; Leaves something in its memory for the next item.
(func $main
  (call $must (i32.load (i32.const 60000))) (call $must (i32.load8_u (i32.const 131071)))
  (call $must (i32.ne (memory.size) (i32.const 2))) (call $must (i32.ne (i32.load (i32.const 40000)) (i32.const 0x6b72616d)))
  (i32.store (i32.const 60000) (i32.const 1)) (i32.store8 (i32.const 131071) (i32.const 1)) (i32.store (i32.const 40000) (i32.const 0)) (drop (memory.grow (i32.const 3))))
(data (i32.const 40000) "mark")
