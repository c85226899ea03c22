;; trapped
(func $main (i64.store (i32.const -1) (i64.const -1)))
