;; Keeps a number that it has made of random bytes while it initialised.
(module
  (import "beacon_v1" "output" (func $output (param i32 i32 i32 i32) (result i32)))
  (import "wasi_snapshot_preview1" "random_get" (func $random (param i32 i32) (result i32)))
  (memory (export "memory") 1)
  (data (i32.const 0) "Kept")
  (data (i32.const 16) "1")
  ;; 16 letters at 17, of as many random bytes
  (func $seed (result i32) (local $i i32) (local $errno i32)
    (local.set $errno (call $random (i32.const 64) (i32.const 16)))
    (loop $more
      (i32.store8 offset=17 (local.get $i)
        (i32.add (i32.const 48) (i32.rem_u (i32.load8_u offset=64 (local.get $i)) (i32.const 10))))
      (local.set $i (i32.add (local.get $i) (i32.const 1)))
      (br_if $more (i32.lt_u (local.get $i) (i32.const 16))))
    (local.get $errno))
  (func (export "beacon_initialize") (result i32) (call $seed))
  (func (export "beacon_execute") (result i32)
    (call $output (i32.const 0) (i32.const 4) (i32.const 16) (i32.const 17))))
