;; ok
;; A call with a million settings, each of which is small.
;; grants api
(memory (export "memory") 200)
(func $main (local $at i32)
  (memory.copy (i32.const 0x20000) (str "{\22Capability\22:\22honest\22,\22Settings\22:{"))
  (local.set $at (i32.const 0x20023))
  (loop $more
    (i64.store (local.get $at) (i64.const 0x3a22000000000022)) (i32.store16 offset=8 (local.get $at) (i32.const 0x2c31))
    (i32.store offset=1 (local.get $at) (i32.add (i32.const 0x41414141) (i32.and (local.get $at) (i32.const 0x0f0f0f0f))))
    (i32.store8 offset=5 (local.get $at) (i32.add (i32.const 0x41) (i32.and (i32.shr_u (local.get $at) (i32.const 4)) (i32.const 15))))
    (br_if $more (i32.lt_u (local.tee $at (i32.add (local.get $at) (i32.const 10))) (i32.const 0xa00000))))
  (i32.store16 (i32.sub (local.get $at) (i32.const 1)) (i32.const 0x7d7d))
  (call $refuse (call $call_open (i32.const 0x20000) (i32.sub (local.get $at) (i32.const 0x1ffff)) (i32.const 32))) (call $why))
