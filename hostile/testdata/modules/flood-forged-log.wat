;; exit 3
;; Lines that look like the host's, and characters that drive a terminal.
(func $main
  (drop (call $log (i32.const 1) (str "one\0atime=2026-01-01 level=ERROR msg=\22all your files are gone\22\0d\1b[2J\1b]0;title\07\e2\80\ae\e2\81\a6txet\ff\fe\00")))
  (drop (call $log (i32.const 77) (str "level"))) (drop (call $log (i32.const -1) (str "\f3\a0\81\81")))
  (i32.store (i32.const 16) (i32.const 1024)) (i32.store (i32.const 20) (i32.const 4))
  (i32.store (i32.const 1024) (i32.const 0x5b1b0a0d)) (drop (call $fd_write (i32.const 2) (i32.const 16) (i32.const 1) (i32.const 24)))
  (call $proc_exit (i32.const 3)))
