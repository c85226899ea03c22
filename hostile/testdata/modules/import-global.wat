;; refused
(import "wasi_snapshot_preview1" "fuel" (global $fuel (mut i64)))
(func $main)
