;; trapped
;; A function that is not there, in a table that is empty.
(type $t (func)) (table 4 funcref)
(func $main (call_indirect (type $t) (i32.const 3)))
