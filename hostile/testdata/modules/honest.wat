;; ok
;; A provider as it should be: reads its source and answers.
(func $main
  (call $must (call $path_open (i32.const 3) (i32.const 0) (str "input.txt") (i32.const 0) (i64.const 2) (i64.const 0) (i32.const 0) (i32.const 32)))
  (call $show (call $fd)))
