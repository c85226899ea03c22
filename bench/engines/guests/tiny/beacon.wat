;; plain.wat as a provider: the setting Input, upper-cased, becomes the output
;; Result. Upper-cased JSON is JSON.
(module
  (import "beacon_v1" "setting" (func $setting (param i32 i32 i32 i32 i32) (result i32)))
  (import "beacon_v1" "output" (func $output (param i32 i32 i32 i32) (result i32)))
  (memory (export "memory") 2 64)
  (global $ready (mut i32) (i32.const 0))
  (data (i32.const 512) "some data")
  (data (i32.const 528) "Input")
  (data (i32.const 544) "Result")
  (func (export "_initialize") (global.set $ready (i32.const 7)) (i32.store (i32.const 600) (i32.const 4242)))
  (func $upper (param $p i32) (param $n i32) (local $i i32) (local $c i32)
    (block $done
      (loop $next
        (br_if $done (i32.ge_u (local.get $i) (local.get $n)))
        (local.set $c (i32.load8_u (i32.add (local.get $p) (local.get $i))))
        (if (i32.lt_u (i32.sub (local.get $c) (i32.const 97)) (i32.const 26))
          (then (i32.store8 (i32.add (local.get $p) (local.get $i)) (i32.sub (local.get $c) (i32.const 32)))))
        (local.set $i (i32.add (local.get $i) (i32.const 1)))
        (br $next))))
  (func (export "beacon_execute") (result i32)
    (if (call $setting (i32.const 528) (i32.const 5) (i32.const 1024) (i32.const 4096) (i32.const 560))
      (then (return (i32.const 1))))
    (call $upper (i32.const 1024) (i32.load (i32.const 560)))
    (call $output (i32.const 544) (i32.const 6) (i32.const 1024) (i32.load (i32.const 560)))))
