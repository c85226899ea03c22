;; failed
;; Exits when it has done its work.
(func (export "beacon_execute") (result i32) (i32.const 0))
(func (export "beacon_shutdown") (result i32) (call $proc_exit (i32.const 9)) (i32.const 0))
