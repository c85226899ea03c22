;; ok
;; As many tables as there may be, as large as they may be together, and all of them filled.
(type $t (func))
(table $a 12500 funcref) (table $b 12500 externref) (table 12500 funcref) (table 12500 funcref) (table 12500 funcref) (table 12500 funcref) (table 12500 funcref) (table 12500 funcref)
(table 12500 funcref) (table 12500 funcref) (table 12500 funcref) (table 12500 funcref) (table 12500 funcref) (table 12500 funcref) (table 12500 funcref) (table $z 12500 funcref)
(elem declare func $main)
(func $main
  (table.fill $a (i32.const 0) (ref.func $main) (i32.const 12500)) (table.copy $z $a (i32.const 0) (i32.const 0) (i32.const 12500))
  (call $must (i32.ne (table.grow $a (ref.func $main) (i32.const 1)) (i32.const -1))) (call $must (i32.ne (table.grow $b (ref.null extern) (i32.const 0x7fffffff)) (i32.const -1))))
