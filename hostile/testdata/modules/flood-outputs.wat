;; output_limit
;; Outputs without end, each under a name of its own.
(func $main (local $n i32)
  (memory.fill (i32.const 8192) (i32.const 49) (i32.const 30000))
  (loop $again
    (i32.store (i32.const 1024) (i32.add (i32.const 0x41414141) (local.get $n))) (local.set $n (i32.add (local.get $n) (i32.const 1)))
    (drop (call $output (i32.const 1024) (i32.const 4) (i32.const 8192) (i32.const 30000))) (br $again)))
