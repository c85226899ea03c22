;; Sets an output of 3600000 angle brackets, and calls with a setting of as many:
;; encoding/json makes six bytes of each, if it is not told otherwise.
(module
  (import "beacon_v1" "output" (func $output (param i32 i32 i32 i32) (result i32)))
  (import "beacon_v1" "call_open" (func $call_open (param i32 i32 i32) (result i32)))
  (import "beacon_v1" "call_wait" (func $call_wait (param i32) (result i32)))
  (import "beacon_v1" "call_output" (func $call_output (param i32 i32 i32 i32 i32 i32) (result i32)))
  (memory (export "memory") 80)
  (data (i32.const 0) "Angles")
  (data (i32.const 65536) "{\"Capability\": \"Other\", \"Settings\": {\"A\": \"")
  (data (i32.const 3665579) "\"}}")
  (func (export "beacon_execute") (result i32)
    (memory.fill (i32.const 65579) (i32.const 0x3c) (i32.const 3600000))
    (if (call $output (i32.const 0) (i32.const 6) (i32.const 65578) (i32.const 3600002)) (then (return (i32.const 1))))
    (if (call $call_open (i32.const 65536) (i32.const 3600046) (i32.const 16)) (then (return (i32.const 2))))
    (if (call $call_wait (i32.load (i32.const 16))) (then (return (i32.const 3))))
    ;; the callee answers with as many
    (if (call $call_output (i32.load (i32.const 16)) (i32.const 0) (i32.const 6) (i32.const 65579) (i32.const 3600000) (i32.const 16)) (then (return (i32.const 4))))
    (i32.ne (i32.load (i32.const 16)) (i32.const 3600000))))
