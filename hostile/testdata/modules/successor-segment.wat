;; ok
(data $d "left") (elem $e func $main) (table $t 4 funcref)
(func $main
  (memory.init $d (i32.const 1024) (i32.const 0) (i32.const 4)) (table.init $t $e (i32.const 0) (i32.const 0) (i32.const 1)) (data.drop $d) (elem.drop $e))
