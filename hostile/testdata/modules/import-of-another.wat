;; refused
;; A function of another guest's.
(import "honest" "_start" (func $other))
(func $main (call $other))
