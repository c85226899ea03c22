;; refused trapped
;; A table of four thousand million functions.
(table 0xffffffff funcref)
(func $main)
