;; Prints 4,000 times 32 KiB without a line's end on standard error.
(module
  (import "wasi_snapshot_preview1" "fd_write" (func $write (param i32 i32 i32 i32) (result i32)))
  (memory (export "memory") 1)
  (data (i32.const 0) "\40\00\00\00\00\80\00\00")
  (data (i32.const 64) "\1b[31mforged\0d\0asecond")
  (func (export "_start") (local $n i32)
    (local.set $n (i32.const 4000))
    (loop $again
      (drop (call $write (i32.const 2) (i32.const 0) (i32.const 1) (i32.const 16)))
      (br_if $again (local.tee $n (i32.sub (local.get $n) (i32.const 1)))))))
