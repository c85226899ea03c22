;; call_limit
;; Progress without end, of numbers that are none.
(func $main
  (loop $again
    (drop (call $progress (f64.const nan) (i32.const -1) (i32.const -2147483648) (i32.const 0) (i32.const 4096)))
    (drop (call $progress (f64.const inf) (i32.const 2147483647) (i32.const 0) (str "\1b[2J\e2\80\aeevil\0aline"))) (br $again)))
