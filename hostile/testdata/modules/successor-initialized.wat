;; ok
;; What it changes after its initialisation is not there next time.
(func (export "_initialize") (i32.store (i32.const 1024) (i32.const 7)) (global.set $g (i32.const 7)))
(global $g (mut i32) (i32.const 0))
(func (export "beacon_execute") (result i32)
  (call $must (i32.ne (i32.load (i32.const 1024)) (i32.const 7))) (call $must (i32.ne (global.get $g) (i32.const 7)))
  (i32.store (i32.const 1024) (i32.const 8)) (global.set $g (i32.const 8)) (memory.fill (i32.const 2048) (i32.const 1) (i32.const 60000)) (i32.const 0))
