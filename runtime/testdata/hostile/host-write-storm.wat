;; timeout call_limit output_limit
(module
  (import "wasi_snapshot_preview1" "fd_write" (func $fd_write (param i32 i32 i32 i32) (result i32)))
  (memory (export "memory") 1)
  (func $start
    (loop $again
      (i32.store (i32.const 4) (i32.const 65000)) (drop (call $fd_write (i32.const 1) (i32.const 0) (i32.const 1) (i32.const 8)))
      (br $again)))
  (export "_start" (func $start)))
