;; trapped
;; Leaves something and breaks down; the next item exits with another number if it is found.
(func $main
  (call $must (i32.load (i32.const 60000))) (i32.store (i32.const 60000) (i32.const 1)) (unreachable))
