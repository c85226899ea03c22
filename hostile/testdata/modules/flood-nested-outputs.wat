;; ok
;; JSON that is as deep as a parser takes, which is too deep inside of something else.
(func $nested (param $deep i32) (result i32)
  (memory.fill (i32.const 32768) (i32.const 0x5b) (local.get $deep))
  (memory.fill (i32.add (i32.const 32768) (local.get $deep)) (i32.const 0x5d) (local.get $deep))
  (call $output (str "N") (i32.const 32768) (i32.shl (local.get $deep) (i32.const 1))))
(func $main
  (call $refuse (call $nested (i32.const 10000))) (call $refuse (call $nested (i32.const 9998))) (call $refuse (call $nested (i32.const 1001)))
  (call $must (call $nested (i32.const 1000))))
