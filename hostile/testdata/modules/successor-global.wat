;; ok
(global $g (mut i64) (i64.const 0)) (global $f (mut f64) (f64.const 0)) (global $v (mut v128) (v128.const i64x2 0 0)) (global $r (mut externref) (ref.null extern)) (global $h (mut funcref) (ref.null func))
(elem declare func $main)
(func $main
  (call $must (i64.ne (global.get $g) (i64.const 0))) (call $must (f64.ne (global.get $f) (f64.const 0))) (call $must (v128.any_true (global.get $v))) (call $must (i32.eqz (ref.is_null (global.get $h))))
  (global.set $g (i64.const 1)) (global.set $f (f64.const 1)) (global.set $v (v128.const i64x2 1 1)) (global.set $h (ref.func $main)))
