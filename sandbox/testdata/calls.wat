;; Makes the call of the setting Call, logs its progress, and has its result as
;; the output Answer.
(module
  (import "beacon_v1" "setting" (func $setting (param i32 i32 i32 i32 i32) (result i32)))
  (import "beacon_v1" "call_open" (func $call_open (param i32 i32 i32) (result i32)))
  (import "beacon_v1" "call_progress" (func $call_progress (param i32 i32 i32 i32) (result i32)))
  (import "beacon_v1" "call_wait" (func $call_wait (param i32) (result i32)))
  (import "beacon_v1" "call_result" (func $call_result (param i32 i32 i32 i32) (result i32)))
  (import "beacon_v1" "log" (func $log (param i32 i32 i32) (result i32)))
  (import "beacon_v1" "output" (func $output (param i32 i32 i32 i32) (result i32)))
  (import "beacon_v1" "last_error" (func $last_error (param i32 i32 i32) (result i32)))
  (import "beacon_v1" "fail" (func $fail (param i32 i32) (result i32)))
  (memory (export "memory") 2)
  (data (i32.const 0) "Call")
  (data (i32.const 16) "Answer")

  (func $failed (result i32)
    (drop (call $last_error (i32.const 1024) (i32.const 1024) (i32.const 64)))
    (drop (call $fail (i32.const 1024) (i32.load (i32.const 64))))
    (i32.const 1))

  (func (export "beacon_execute") (result i32)
    (local $h i32)
    (drop (call $setting (i32.const 0) (i32.const 4) (i32.const 4096) (i32.const 4096) (i32.const 64)))
    (if (call $call_open (i32.const 4096) (i32.load (i32.const 64)) (i32.const 68)) (then (return (call $failed))))
    (local.set $h (i32.load (i32.const 68)))
    (loop $more
      (if (i32.eqz (call $call_progress (local.get $h) (i32.const 4096) (i32.const 60000) (i32.const 64)))
        (then
          (drop (call $log (i32.const 1) (i32.const 4096) (i32.load (i32.const 64))))
          (br $more))))
    (if (call $call_wait (local.get $h)) (then (return (call $failed))))
    (if (call $call_result (local.get $h) (i32.const 4096) (i32.const 60000) (i32.const 64)) (then (return (call $failed))))
    (drop (call $output (i32.const 16) (i32.const 6) (i32.const 4096) (i32.load (i32.const 64))))
    (i32.const 0)))
