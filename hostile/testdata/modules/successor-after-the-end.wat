;; timeout
;; Leaves something and is ended in the middle.
(func $main
  (call $must (i32.load (i32.const 60000))) (i32.store (i32.const 60000) (i32.const 1)) (drop (memory.grow (i32.const 2))) (loop $again (br $again)))
