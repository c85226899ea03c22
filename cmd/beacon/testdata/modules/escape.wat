;; Tries to create a file outside of its directory, under several names, and
;; exits with the number of tries that worked.
(module
  (import "wasi_snapshot_preview1" "path_open" (func $open (param i32 i32 i32 i32 i32 i64 i64 i32 i32) (result i32)))
  (import "wasi_snapshot_preview1" "path_symlink" (func $symlink (param i32 i32 i32 i32 i32) (result i32)))
  (import "wasi_snapshot_preview1" "proc_exit" (func $exit (param i32)))
  (memory (export "memory") 1)
  (data (i32.const 0) "../escaped")
  (data (i32.const 16) "/tmp/escaped")
  (data (i32.const 32) "a/../../escaped")
  (data (i32.const 64) "..")
  (data (i32.const 80) "link")
  (data (i32.const 96) "link/escaped")
  (func $try (param i32 i32) (result i32)
    ;; create, write
    (i32.eqz (call $open (i32.const 3) (i32.const 0) (local.get 0) (local.get 1) (i32.const 1)
      (i64.const 64) (i64.const 64) (i32.const 0) (i32.const 200))))
  (func (export "_start") (local i32)
    (local.set 0 (call $try (i32.const 0) (i32.const 10)))
    (local.set 0 (i32.add (local.get 0) (call $try (i32.const 32) (i32.const 15))))
    (local.set 0 (i32.add (local.get 0) (i32.eqz (call $symlink (i32.const 64) (i32.const 2) (i32.const 3) (i32.const 80) (i32.const 4)))))
    (local.set 0 (i32.add (local.get 0) (call $try (i32.const 96) (i32.const 12))))
    (call $exit (i32.add (local.get 0) (i32.const 40)))))
