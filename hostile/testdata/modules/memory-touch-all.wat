;; ok
;; Writes to every page of what it gets.
(func $main (local $at i32)
  (drop (memory.grow (i32.const 200)))
  (loop $next
    (i32.store (local.get $at) (i32.const -1))
    (br_if $next (i32.lt_u (local.tee $at (i32.add (local.get $at) (i32.const 4096))) (i32.mul (memory.size) (i32.const 65536))))))
