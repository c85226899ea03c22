;; output_limit
;; Standard output without end.
(func $main
  (loop $again (call $print (i32.const 0) (i32.const 65536)) (br $again)))
