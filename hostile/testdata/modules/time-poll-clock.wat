;; ok
;; Reads a finer clock by asking of many moments at once which of them are over.
(func $moments (param $id i32) (local $n i32) (local $at i64)
  (call $must (call $clock_time_get (local.get $id) (i64.const 1) (i32.const 32)))
  (local.set $at (i64.load (i32.const 32)))
  (memory.fill (i32.const 4096) (i32.const 0) (i32.const 3072))
  (loop $each
    (i32.store8 (i32.add (i32.const 4104) (i32.mul (local.get $n) (i32.const 48))) (i32.const 0))
    (i64.store (i32.add (i32.const 4096) (i32.mul (local.get $n) (i32.const 48))) (i64.extend_i32_u (local.get $n)))
    (i32.store (i32.add (i32.const 4112) (i32.mul (local.get $n) (i32.const 48))) (local.get $id))
    (i64.store (i32.add (i32.const 4120) (i32.mul (local.get $n) (i32.const 48))) (i64.add (local.get $at) (i64.mul (i64.extend_i32_u (local.get $n)) (i64.const 100000))))
    (i32.store16 (i32.add (i32.const 4136) (i32.mul (local.get $n) (i32.const 48))) (i32.const 1))
    (br_if $each (i32.lt_u (local.tee $n (i32.add (local.get $n) (i32.const 1))) (i32.const 61))))
  (i64.store (i32.const 7024) (i64.const 1000))
  (i32.store8 (i32.const 7032) (i32.const 2)) (i32.store (i32.const 7040) (i32.const 1))
  (call $must (call $poll_oneoff (i32.const 4096) (i32.const 16384) (i32.const 62) (i32.const 40)))
  ;; Every tenth moment is one of a clock that is as it should be.
  (local.set $n (i32.rem_u (i32.load (i32.const 40)) (i32.const 10)))
  (call $refuse (i32.eq (local.get $n) (i32.const 2))))
(func $main (local $n i32)
  (loop $again
    (call $moments (i32.const 0)) (call $moments (i32.const 1))
    (br_if $again (i32.lt_u (local.tee $n (i32.add (local.get $n) (i32.const 1))) (i32.const 100)))))
