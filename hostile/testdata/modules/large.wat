;; ok
;; Prints as much as is allowed, of what takes six times as much in JSON.
(func $main (local $n i32)
  (loop $again
    (call $print (i32.const 1024) (i32.const 60000))
    (br_if $again (i32.lt_u (local.tee $n (i32.add (local.get $n) (i32.const 1))) (i32.const 16)))))
