;; ok
;; Calls by names that are not text, of which each byte becomes three on the way.
;; grants api
(memory (export "memory") 240)
(func $try (param $json i32) (param $len i32)
  (memory.fill (i32.const 0x20000) (i32.const 0xff) (i32.const 14000000))
  (memory.copy (i32.const 0x20000) (local.get $json) (local.get $len))
  (i32.store16 (i32.const 14131072) (i32.const 0x7d22))
  (if (i32.eqz (call $call_open (i32.const 0x20000) (i32.const 14000002) (i32.const 32))) (then
    (call $refuse (call $call_wait (call $fd))) (call $why)
    (call $must (call $handle_close (call $fd))))))
(func $main
  (call $try (str "{\22Capability\22:\22"))
  (call $try (str "{\22Capability\22:\22honest\22,\22Action\22:\22"))
  (call $try (str "{\22Capability\22:\22honest\22,\22Settings\22:{\22A\22:1},\22Output\22:\22"))
  (call $try (str "{\22Capability\22:\22honest\22,\22Settings\22:{\22A\22:\22")))
