;; plain.wat as a plugin of Extism, whose memory is another one: the input is
;; copied from there and the output back, eight bytes at a time.
(module
  (import "extism:host/env" "length" (func $length (param i64) (result i64)))
  (import "extism:host/env" "input_length" (func $input_length (result i64)))
  (import "extism:host/env" "input_load_u64" (func $input_load_u64 (param i64) (result i64)))
  (import "extism:host/env" "input_load_u8" (func $input_load_u8 (param i64) (result i32)))
  (import "extism:host/env" "alloc" (func $alloc (param i64) (result i64)))
  (import "extism:host/env" "store_u64" (func $store_u64 (param i64 i64)))
  (import "extism:host/env" "store_u8" (func $store_u8 (param i64 i32)))
  (import "extism:host/env" "output_set" (func $output_set (param i64 i64)))
  (memory (export "memory") 2 64)
  (global $ready (mut i32) (i32.const 0))
  (data (i32.const 512) "some data")
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
  (func (export "run") (result i32) (local $n i64) (local $i i64) (local $out i64)
    (local.set $n (call $input_length))
    (loop $in
      (if (i64.le_u (i64.add (local.get $i) (i64.const 8)) (local.get $n))
        (then
          (i64.store offset=1024 (i32.wrap_i64 (local.get $i)) (call $input_load_u64 (local.get $i)))
          (local.set $i (i64.add (local.get $i) (i64.const 8)))
          (br $in)))
      (if (i64.lt_u (local.get $i) (local.get $n))
        (then
          (i32.store8 offset=1024 (i32.wrap_i64 (local.get $i)) (call $input_load_u8 (local.get $i)))
          (local.set $i (i64.add (local.get $i) (i64.const 1)))
          (br $in))))
    (call $upper (i32.const 1024) (i32.wrap_i64 (local.get $n)))
    (local.set $out (call $alloc (local.get $n)))
    (local.set $i (i64.const 0))
    (loop $back
      (if (i64.le_u (i64.add (local.get $i) (i64.const 8)) (local.get $n))
        (then
          (call $store_u64 (i64.add (local.get $out) (local.get $i)) (i64.load offset=1024 (i32.wrap_i64 (local.get $i))))
          (local.set $i (i64.add (local.get $i) (i64.const 8)))
          (br $back)))
      (if (i64.lt_u (local.get $i) (local.get $n))
        (then
          (call $store_u8 (i64.add (local.get $out) (local.get $i)) (i32.load8_u offset=1024 (i32.wrap_i64 (local.get $i))))
          (local.set $i (i64.add (local.get $i) (i64.const 1)))
          (br $back))))
    (call $output_set (local.get $out) (local.get $n))
    (i32.const 0)))
