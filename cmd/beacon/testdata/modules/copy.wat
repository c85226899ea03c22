;; Copies the staged source to the output.
(module
  (import "wasi_snapshot_preview1" "path_open" (func $open (param i32 i32 i32 i32 i32 i64 i64 i32 i32) (result i32)))
  (import "wasi_snapshot_preview1" "fd_read" (func $read (param i32 i32 i32 i32) (result i32)))
  (import "wasi_snapshot_preview1" "fd_write" (func $write (param i32 i32 i32 i32) (result i32)))
  (memory (export "memory") 4)
  (data (i32.const 1024) "in.txt")
  (data (i32.const 1040) "out.txt")
  (func (export "_start")
    ;; descriptor of the source at 0, of the output at 4
    (if (call $open (i32.const 3) (i32.const 0) (i32.const 1024) (i32.const 6) (i32.const 0) (i64.const 2) (i64.const 2) (i32.const 0) (i32.const 0)) (then unreachable))
    (if (call $open (i32.const 3) (i32.const 0) (i32.const 1040) (i32.const 7) (i32.const 9) (i64.const 64) (i64.const 64) (i32.const 0) (i32.const 4)) (then unreachable))
    (loop $more
      (i32.store (i32.const 8) (i32.const 65536))  ;; buffer
      (i32.store (i32.const 12) (i32.const 65536)) ;; its size
      (if (call $read (i32.load (i32.const 0)) (i32.const 8) (i32.const 1) (i32.const 16)) (then unreachable))
      (i32.store (i32.const 12) (i32.load (i32.const 16)))
      (if (call $write (i32.load (i32.const 4)) (i32.const 8) (i32.const 1) (i32.const 20)) (then unreachable))
      (br_if $more (i32.load (i32.const 16))))))
