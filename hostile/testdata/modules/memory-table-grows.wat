;; ok
;; A table that grows while it can.
(table $t 1 externref)
(func $main
  (loop $again (br_if $again (i32.ne (table.grow $t (ref.null extern) (i32.const 1000)) (i32.const -1)))))
