;; timeout call_limit output_limit
(module
  (import "wasi_snapshot_preview1" "sched_yield" (func $sched_yield  (result i32)))
  (memory (export "memory") 1)
  (func $start
    (loop $again
      (drop (call $sched_yield))
      (br $again)))
  (export "_start" (func $start)))
