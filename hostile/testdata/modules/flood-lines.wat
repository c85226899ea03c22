;; call_limit
;; Nothing but ends of lines.
(func $main
  (memory.fill (i32.const 1024) (i32.const 10) (i32.const 32768))
  (loop $again (drop (call $log (i32.const 3) (i32.const 1024) (i32.const 2048))) (br $again)))
