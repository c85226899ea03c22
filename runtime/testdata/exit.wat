;; Exits with the code that the setting Code has, in decimal.
(module
  (import "beacon_v1" "setting" (func $setting (param i32 i32 i32 i32 i32) (result i32)))
  (import "wasi_snapshot_preview1" "proc_exit" (func $exit (param i32)))
  (memory (export "memory") 1)
  (data (i32.const 0) "Code")
  (func (export "_start") (local $at i32) (local $code i32)
    (drop (call $setting (i32.const 0) (i32.const 4) (i32.const 64) (i32.const 32) (i32.const 16)))
    (loop $digits
      (if (i32.lt_u (local.get $at) (i32.load (i32.const 16)))
        (then
          (local.set $code (i32.add (i32.mul (local.get $code) (i32.const 10))
            (i32.sub (i32.load8_u offset=64 (local.get $at)) (i32.const 48))))
          (local.set $at (i32.add (local.get $at) (i32.const 1)))
          (br $digits))))
    (call $exit (local.get $code))))
