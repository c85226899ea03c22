;; call_limit
;; Waits for the disk, over and over again.
(func $main
  (call $must (call $open (str "x") (i32.const 1)))
  (loop $again (drop (call $fd_sync (call $fd))) (drop (call $fd_datasync (call $fd))) (br $again)))
