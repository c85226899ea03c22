;; refused
(table 200000 funcref) (table 200000 externref)
(func $main)
