;; Describes itself, and wants its configuration for it.
(module
  (import "beacon_v1" "describe" (func $describe (param i32 i32) (result i32)))
  (import "beacon_v1" "output" (func $output (param i32 i32 i32 i32) (result i32)))
  (memory (export "memory") 1)
  (data (i32.const 0) "{\"Capability\":\"Described\",\"Actions\":[{\"Name\":\"Do\"}]}")
  (func (export "beacon_describe") (result i32) (call $describe (i32.const 0) (i32.const 52)))
  (func (export "beacon_execute") (result i32)
    ;; Not now: the number becomes the output.
    (i32.store8 (i32.const 1000) (i32.const 78))
    (i32.store16 (i32.const 1001) (i32.const 0x3131))
    (drop (call $output (i32.const 1000) (i32.const 1) (i32.const 1001)
      (i32.add (i32.const 1) (i32.eq (call $describe (i32.const 0) (i32.const 52)) (i32.const 11)))))
    (i32.const 0)))
