;; ok
;; As much output as is allowed, every second byte of which is no text: each becomes three, twice, and all of them base64.
(memory (export "memory") 33)
(func $main (local $at i32)
  (loop $fill
    (i32.store16 (i32.add (i32.const 0x100000) (local.get $at)) (i32.const 0xff61))
    (br_if $fill (i32.lt_u (local.tee $at (i32.add (local.get $at) (i32.const 2))) (i32.const 0x100000))))
  (call $print (i32.const 0x100000) (i32.const 0x100000)))
