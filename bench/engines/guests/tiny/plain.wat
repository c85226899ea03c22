;; Upper-cases its input in place. ABI: alloc(n) -> pointer, run(pointer, n) ->
;; pointer<<32 | n.
(module
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
  ;; for what is initialised in advance
  (func (export "warm"))
  (func (export "alloc") (param i32) (result i32) (i32.const 1024))
  (func (export "run") (param $p i32) (param $n i32) (result i64)
    (call $upper (local.get $p) (local.get $n))
    (i64.or (i64.shl (i64.extend_i32_u (local.get $p)) (i64.const 32)) (i64.extend_i32_u (local.get $n)))))
