;; call_limit
;; The same byte by byte.
(func $main
  (loop $again (call $print (i32.const 0) (i32.const 1)) (br $again)))
