;; failed
;; A message of failure that is none.
(func (export "beacon_execute") (result i32)
  (memory.fill (i32.const 1024) (i32.const 27) (i32.const 60000))
  (drop (call $fail (str "\1b[31m\0apanic: [running]:\0d\e2\80\ae\ff"))) (drop (call $fail (i32.const 1024) (i32.const 60000))) (i32.const 1))
