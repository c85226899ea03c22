;; ok
(table $t 4 funcref) (elem declare func $main)
(func $main
  (call $must (i32.eqz (ref.is_null (table.get $t (i32.const 2))))) (call $must (i32.ne (table.size $t) (i32.const 4)))
  (table.set $t (i32.const 2) (ref.func $main)) (drop (table.grow $t (ref.null func) (i32.const 5))))
