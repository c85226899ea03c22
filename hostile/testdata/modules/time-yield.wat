;; call_limit
;; Yields without end, and asks how much time is left.
(func $main
  (loop $again (drop (call $sched_yield)) (drop (call $remaining (i32.const 32))) (drop (call $cancelled)) (br $again)))
