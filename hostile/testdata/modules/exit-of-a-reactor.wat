;; failed
;; A reactor that exits instead of returning.
(func (export "beacon_execute") (result i32) (call $proc_exit (i32.const 0)) (i32.const 0))
