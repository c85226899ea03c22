;; timeout
;; Goes on after each call that fails, and does not want to hear of cancelling.
(func $main
  (loop $again (drop (call $cancelled)) (drop (call $fail (str "not yet"))) (drop (call $handle_wait (i32.const 0) (i32.const 0) (i64.const 1000) (i32.const 32))) (br $again)))
