;; ok
;; Names that are longer than names may be.
(func $main
  (memory.fill (i32.const 1024) (i32.const 97) (i32.const 64000))
  (call $steal (i32.const 1024) (i32.const 256)) (call $steal (i32.const 1024) (i32.const 4096)) (call $steal (i32.const 1024) (i32.const 4097))
  (call $steal (i32.const 1024) (i32.const 64000))
  (memory.fill (i32.const 1024) (i32.const 47) (i32.const 64000))
  (call $steal (i32.const 1024) (i32.const 4096)) (call $steal (i32.const 1024) (i32.const 64000))
  (call $steal (i32.const 0) (i32.const 131072)) (call $steal (i32.const 0) (i32.const 0)))
