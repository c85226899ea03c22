;; A guest without a memory, which passes pointers nevertheless.
(module
  (import "wasi_snapshot_preview1" "random_get" (func $random_get (param i32 i32) (result i32)))
  (import "wasi_snapshot_preview1" "fd_write" (func $fd_write (param i32 i32 i32 i32) (result i32)))
  (import "wasi_snapshot_preview1" "args_sizes_get" (func $args_sizes_get (param i32 i32) (result i32)))
  (func (export "random_get") (result i32) (call $random_get (i32.const 0) (i32.const 0)))
  (func (export "fd_write") (result i32) (call $fd_write (i32.const 1) (i32.const 0) (i32.const 1) (i32.const 16)))
  (func (export "args_sizes_get") (result i32) (call $args_sizes_get (i32.const 0) (i32.const 4))))
