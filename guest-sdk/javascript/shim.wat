;; What joins the engine (QuickJS-NG as the npm package quickjs-wasi has it, here
;; the module "engine") with beacon_v1: the functions that the engine wants of its
;; environment, the function that scripts call the host by, and the entries of a
;; reactor. shim.wasm is made from this by wat2wasm.
;;
;; Scripts call one function with the number of a host function, by its place in the
;; list below, and arguments: numbers, and Uint8Arrays where the host wants a pointer
;; with or without a size. beacon.js is the only one to do so.
(module
  ;; beacon_v1, as hostfuncs/ABI.md describes it.
  (import "beacon_v1" "work_item" (func $work_item (param i32 i32 i32) (result i32)))
  (import "beacon_v1" "settings" (func $settings (param i32 i32 i32) (result i32)))
  (import "beacon_v1" "setting" (func $setting (param i32 i32 i32 i32 i32) (result i32)))
  (import "beacon_v1" "config" (func $config (param i32 i32 i32 i32 i32) (result i32)))
  (import "beacon_v1" "progress" (func $progress (param f64 i32 i32 i32 i32) (result i32)))
  (import "beacon_v1" "log" (func $log (param i32 i32 i32) (result i32)))
  (import "beacon_v1" "output" (func $output (param i32 i32 i32 i32) (result i32)))
  (import "beacon_v1" "fail" (func $fail (param i32 i32) (result i32)))
  (import "beacon_v1" "describe" (func $describe (param i32 i32) (result i32)))
  (import "beacon_v1" "last_error" (func $last_error (param i32 i32 i32) (result i32)))
  (import "beacon_v1" "remaining" (func $remaining (param i32) (result i32)))
  (import "beacon_v1" "cancelled" (func $cancelled (result i32)))
  (import "beacon_v1" "now" (func $now (param i32 i32) (result i32)))
  (import "beacon_v1" "random" (func $random (param i32 i32) (result i32)))
  (import "beacon_v1" "file_open" (func $file_open (param i32 i32 i32 i32) (result i32)))
  (import "beacon_v1" "file_read" (func $file_read (param i32 i32 i32 i32) (result i32)))
  (import "beacon_v1" "file_write" (func $file_write (param i32 i32 i32 i32) (result i32)))
  (import "beacon_v1" "file_seek" (func $file_seek (param i32 i64 i32 i32) (result i32)))
  (import "beacon_v1" "file_size" (func $file_size (param i32 i32) (result i32)))
  (import "beacon_v1" "file_close" (func $file_close (param i32) (result i32)))
  (import "beacon_v1" "file_list" (func $file_list (param i32 i32 i32 i32 i32) (result i32)))
  (import "beacon_v1" "file_remove" (func $file_remove (param i32 i32) (result i32)))
  (import "beacon_v1" "file_rename" (func $file_rename (param i32 i32 i32 i32) (result i32)))
  (import "beacon_v1" "file_make_directory" (func $file_make_directory (param i32 i32) (result i32)))
  (import "beacon_v1" "handle_wait" (func $handle_wait (param i32 i32 i64 i32) (result i32)))
  (import "beacon_v1" "handle_close" (func $handle_close (param i32) (result i32)))
  (import "beacon_v1" "http_open" (func $http_open (param i32 i32 i32) (result i32)))
  (import "beacon_v1" "http_write" (func $http_write (param i32 i32 i32 i32) (result i32)))
  (import "beacon_v1" "http_wait" (func $http_wait (param i32 i32) (result i32)))
  (import "beacon_v1" "http_response" (func $http_response (param i32 i32 i32 i32) (result i32)))
  (import "beacon_v1" "http_header" (func $http_header (param i32 i32 i32 i32 i32 i32) (result i32)))
  (import "beacon_v1" "http_read" (func $http_read (param i32 i32 i32 i32) (result i32)))
  (import "beacon_v1" "call_open" (func $call_open (param i32 i32 i32) (result i32)))
  (import "beacon_v1" "call_progress" (func $call_progress (param i32 i32 i32 i32) (result i32)))
  (import "beacon_v1" "call_wait" (func $call_wait (param i32) (result i32)))
  (import "beacon_v1" "call_result" (func $call_result (param i32 i32 i32 i32) (result i32)))
  (import "beacon_v1" "call_output" (func $call_output (param i32 i32 i32 i32 i32 i32) (result i32)))
  (import "beacon_v1" "secret" (func $secret (param i32 i32) (result i32)))
  (import "wasi_snapshot_preview1" "proc_exit" (func $proc_exit (param i32)))

  (import "engine" "memory" (memory 0))
  (import "engine" "_initialize" (func $engine_initialize))
  (import "engine" "qjs_init" (func $qjs_init (result i32)))
  (import "engine" "qjs_set_max_stack_size" (func $qjs_set_max_stack_size (param i32)))
  (import "engine" "qjs_eval" (func $qjs_eval (param i32 i32 i32 i32) (result i32)))
  (import "engine" "qjs_call" (func $qjs_call (param i32 i32 i32 i32) (result i32)))
  (import "engine" "qjs_get_global" (func $qjs_get_global (result i32)))
  (import "engine" "qjs_set_prop_string" (func $qjs_set_prop_string (param i32 i32 i32) (result i32)))
  (import "engine" "qjs_new_host_function" (func $qjs_new_host_function (param i32 i32 i32) (result i32)))
  (import "engine" "qjs_new_number" (func $qjs_new_number (param f64) (result i32)))
  (import "engine" "qjs_new_string" (func $qjs_new_string (param i32 i32) (result i32)))
  (import "engine" "qjs_new_array_buffer" (func $qjs_new_array_buffer (param i32 i32) (result i32)))
  (import "engine" "qjs_get_undefined" (func $qjs_get_undefined (result i32)))
  (import "engine" "qjs_get_float64" (func $qjs_get_float64 (param i32) (result f64)))
  (import "engine" "qjs_get_context_ptr" (func $qjs_get_context_ptr (result i32)))
  (import "engine" "qjs_is_exception" (func $qjs_is_exception (param i32) (result i32)))
  (import "engine" "qjs_get_exception" (func $qjs_get_exception (result i32)))
  (import "engine" "qjs_execute_pending_job" (func $qjs_execute_pending_job (result i32)))
  (import "engine" "qjs_set_promise_rejection_handler" (func $qjs_set_promise_rejection_handler (param i32)))
  (import "engine" "qjs_free_value" (func $qjs_free_value (param i32)))
  (import "engine" "JS_GetUint8Array" (func $JS_GetUint8Array (param i32 i32 i64) (result i32)))
  (import "engine" "JS_ToCStringLen2" (func $JS_ToCStringLen2 (param i32 i32 i64 i32) (result i32)))
  (import "engine" "JS_FreeCString" (func $JS_FreeCString (param i32 i32)))
  (import "engine" "malloc" (func $malloc (param i32) (result i32)))

  ;; Three texts, each with a byte 0 after it: beacon.js, the script's name, the
  ;; script. Before them stand four lengths: of all that follows the first, and of
  ;; the texts, which do not count the byte 0. This one is for an engine without a script; whoever builds a provider
  ;; puts another segment in its place.
  (data $script "BEACON-SCRIPT")

  (global $cell (mut i32) (i32.const 0))  ;; 64 bytes for whatever
  (global $argv (mut i32) (i32.const 0))  ;; the arguments of the call that runs
  (global $entry (mut i32) (i32.const 0)) ;; the function that beacon.js leaves

  ;; Arguments by their place, as a value of the engine, numbers, and bytes.
  (func $v (param $k i32) (result i64)
    (i64.load (i32.load (i32.add (global.get $argv) (i32.shl (local.get $k) (i32.const 2))))))
  (func $d (param $k i32) (result f64)
    (call $qjs_get_float64 (i32.load (i32.add (global.get $argv) (i32.shl (local.get $k) (i32.const 2))))))
  (func $l (param $k i32) (result i64)
    (i64.trunc_sat_f64_s (call $d (local.get $k))))
  (func $i (param $k i32) (result i32)
    (i32.wrap_i64 (call $l (local.get $k))))
  (func $p (param $k i32) (result i32)
    (call $JS_GetUint8Array (call $qjs_get_context_ptr) (global.get $cell) (call $v (local.get $k))))
  (func $n (param $k i32) (result i32)
    (drop (call $p (local.get $k)))
    (i32.load (global.get $cell)))

  ;; What the engine wants of its environment.
  (func (export "host_interrupt") (result i32) (i32.const 0))
  ;; A promise that is rejected while nobody waits for it, or is waited for after all:
  ;; beacon.js keeps the reason, for when nothing else says why an item does not end.
  (func (export "host_promise_rejection") (param $promise i32) (param $reason i32) (param $handled i32)
    (if (global.get $entry) (then
      (drop (call $call (select (i32.const 8) (i32.const 7) (local.get $handled)) (local.get $reason)))))
    (call $qjs_free_value (local.get $promise))
    (call $qjs_free_value (local.get $reason)))
  (func (export "host_module_normalize") (param i32 i32) (result i32) (i32.const 0))
  (func (export "host_module_load") (param i32 i32) (result i32) (i32.const 0))
  (func (export "host_get_timezone_offset") (param i32 i32) (result i32) (i32.const 0))
  (func (export "host_call") (param $name i32) (param $name_len i32) (param $this i32) (param $argc i32) (param $args i32) (result i32)
    (local $text i32)
    (global.set $argv (local.get $args))
    ;; UTF-8 of a text, as an ArrayBuffer
    (if (i32.eq (call $i (i32.const 0)) (i32.const 100)) (then
      (local.set $text (call $JS_ToCStringLen2 (call $qjs_get_context_ptr) (global.get $cell) (call $v (i32.const 1)) (i32.const 0)))
      (if (i32.eqz (local.get $text)) (then (return (i32.const 0))))
      (local.set $name (call $qjs_new_array_buffer (local.get $text) (i32.load (global.get $cell))))
      (call $JS_FreeCString (call $qjs_get_context_ptr) (local.get $text))
      (return (local.get $name))))
    ;; the text of so many bytes of UTF-8
    (if (i32.eq (call $i (i32.const 0)) (i32.const 101)) (then
      (return (call $qjs_new_string (call $p (i32.const 1)) (call $i (i32.const 2))))))
    (call $qjs_new_number (f64.convert_i32_u (call $function))))

  (func $function (result i32)
    (local $op i32)
    (local.set $op (call $i (i32.const 0)))
    (if (i32.eq (local.get $op) (i32.const 0)) (then (return (call $work_item (call $p (i32.const 1)) (call $n (i32.const 1)) (call $p (i32.const 2))))))
    (if (i32.eq (local.get $op) (i32.const 1)) (then (return (call $settings (call $p (i32.const 1)) (call $n (i32.const 1)) (call $p (i32.const 2))))))
    (if (i32.eq (local.get $op) (i32.const 2)) (then (return (call $setting (call $p (i32.const 1)) (call $n (i32.const 1)) (call $p (i32.const 2)) (call $n (i32.const 2)) (call $p (i32.const 3))))))
    (if (i32.eq (local.get $op) (i32.const 3)) (then (return (call $config (call $p (i32.const 1)) (call $n (i32.const 1)) (call $p (i32.const 2)) (call $n (i32.const 2)) (call $p (i32.const 3))))))
    (if (i32.eq (local.get $op) (i32.const 4)) (then (return (call $progress (call $d (i32.const 1)) (call $i (i32.const 2)) (call $i (i32.const 3)) (call $p (i32.const 4)) (call $n (i32.const 4))))))
    (if (i32.eq (local.get $op) (i32.const 5)) (then (return (call $log (call $i (i32.const 1)) (call $p (i32.const 2)) (call $n (i32.const 2))))))
    (if (i32.eq (local.get $op) (i32.const 6)) (then (return (call $output (call $p (i32.const 1)) (call $n (i32.const 1)) (call $p (i32.const 2)) (call $n (i32.const 2))))))
    (if (i32.eq (local.get $op) (i32.const 7)) (then (return (call $fail (call $p (i32.const 1)) (call $n (i32.const 1))))))
    (if (i32.eq (local.get $op) (i32.const 8)) (then (return (call $describe (call $p (i32.const 1)) (call $n (i32.const 1))))))
    (if (i32.eq (local.get $op) (i32.const 9)) (then (return (call $last_error (call $p (i32.const 1)) (call $n (i32.const 1)) (call $p (i32.const 2))))))
    (if (i32.eq (local.get $op) (i32.const 10)) (then (return (call $remaining (call $p (i32.const 1))))))
    (if (i32.eq (local.get $op) (i32.const 11)) (then (return (call $cancelled))))
    (if (i32.eq (local.get $op) (i32.const 12)) (then (return (call $now (call $i (i32.const 1)) (call $p (i32.const 2))))))
    (if (i32.eq (local.get $op) (i32.const 13)) (then (return (call $random (call $p (i32.const 1)) (call $n (i32.const 1))))))
    (if (i32.eq (local.get $op) (i32.const 14)) (then (return (call $file_open (call $p (i32.const 1)) (call $n (i32.const 1)) (call $i (i32.const 2)) (call $p (i32.const 3))))))
    (if (i32.eq (local.get $op) (i32.const 15)) (then (return (call $file_read (call $i (i32.const 1)) (call $p (i32.const 2)) (call $n (i32.const 2)) (call $p (i32.const 3))))))
    (if (i32.eq (local.get $op) (i32.const 16)) (then (return (call $file_write (call $i (i32.const 1)) (call $p (i32.const 2)) (call $n (i32.const 2)) (call $p (i32.const 3))))))
    (if (i32.eq (local.get $op) (i32.const 17)) (then (return (call $file_seek (call $i (i32.const 1)) (call $l (i32.const 2)) (call $i (i32.const 3)) (call $p (i32.const 4))))))
    (if (i32.eq (local.get $op) (i32.const 18)) (then (return (call $file_size (call $i (i32.const 1)) (call $p (i32.const 2))))))
    (if (i32.eq (local.get $op) (i32.const 19)) (then (return (call $file_close (call $i (i32.const 1))))))
    (if (i32.eq (local.get $op) (i32.const 20)) (then (return (call $file_list (call $p (i32.const 1)) (call $n (i32.const 1)) (call $p (i32.const 2)) (call $n (i32.const 2)) (call $p (i32.const 3))))))
    (if (i32.eq (local.get $op) (i32.const 21)) (then (return (call $file_remove (call $p (i32.const 1)) (call $n (i32.const 1))))))
    (if (i32.eq (local.get $op) (i32.const 22)) (then (return (call $file_rename (call $p (i32.const 1)) (call $n (i32.const 1)) (call $p (i32.const 2)) (call $n (i32.const 2))))))
    (if (i32.eq (local.get $op) (i32.const 23)) (then (return (call $file_make_directory (call $p (i32.const 1)) (call $n (i32.const 1))))))
    (if (i32.eq (local.get $op) (i32.const 24)) (then (return (call $handle_wait (call $p (i32.const 1)) (call $n (i32.const 1)) (call $l (i32.const 2)) (call $p (i32.const 3))))))
    (if (i32.eq (local.get $op) (i32.const 25)) (then (return (call $handle_close (call $i (i32.const 1))))))
    (if (i32.eq (local.get $op) (i32.const 26)) (then (return (call $http_open (call $p (i32.const 1)) (call $n (i32.const 1)) (call $p (i32.const 2))))))
    (if (i32.eq (local.get $op) (i32.const 27)) (then (return (call $http_write (call $i (i32.const 1)) (call $p (i32.const 2)) (call $n (i32.const 2)) (call $p (i32.const 3))))))
    (if (i32.eq (local.get $op) (i32.const 28)) (then (return (call $http_wait (call $i (i32.const 1)) (call $p (i32.const 2))))))
    (if (i32.eq (local.get $op) (i32.const 29)) (then (return (call $http_response (call $i (i32.const 1)) (call $p (i32.const 2)) (call $n (i32.const 2)) (call $p (i32.const 3))))))
    (if (i32.eq (local.get $op) (i32.const 30)) (then (return (call $http_header (call $i (i32.const 1)) (call $p (i32.const 2)) (call $n (i32.const 2)) (call $p (i32.const 3)) (call $n (i32.const 3)) (call $p (i32.const 4))))))
    (if (i32.eq (local.get $op) (i32.const 31)) (then (return (call $http_read (call $i (i32.const 1)) (call $p (i32.const 2)) (call $n (i32.const 2)) (call $p (i32.const 3))))))
    (if (i32.eq (local.get $op) (i32.const 32)) (then (return (call $call_open (call $p (i32.const 1)) (call $n (i32.const 1)) (call $p (i32.const 2))))))
    (if (i32.eq (local.get $op) (i32.const 33)) (then (return (call $call_progress (call $i (i32.const 1)) (call $p (i32.const 2)) (call $n (i32.const 2)) (call $p (i32.const 3))))))
    (if (i32.eq (local.get $op) (i32.const 34)) (then (return (call $call_wait (call $i (i32.const 1))))))
    (if (i32.eq (local.get $op) (i32.const 35)) (then (return (call $call_result (call $i (i32.const 1)) (call $p (i32.const 2)) (call $n (i32.const 2)) (call $p (i32.const 3))))))
    (if (i32.eq (local.get $op) (i32.const 36)) (then (return (call $call_output (call $i (i32.const 1)) (call $p (i32.const 2)) (call $n (i32.const 2)) (call $p (i32.const 3)) (call $n (i32.const 3)) (call $p (i32.const 4))))))
    (if (i32.eq (local.get $op) (i32.const 37)) (then (return (call $secret (call $p (i32.const 1)) (call $n (i32.const 1))))))
    (if (i32.eq (local.get $op) (i32.const 102)) (then (call $proc_exit (call $i (i32.const 1)))))
    (unreachable))

  ;; Becomes _initialize, which the engine has one of, too.
  (func (export "beacon_start")
    (local $all i32) (local $text i32) (local $value i32)
    (call $engine_initialize)
    (drop (call $qjs_init))
    (call $qjs_set_max_stack_size (i32.const 131072))
    (global.set $cell (call $malloc (i32.const 64)))
    ;; globalThis.h, which beacon.js takes away
    (i32.store16 (global.get $cell) (i32.const 0x68))
    (local.set $value (call $qjs_new_host_function (global.get $cell) (i32.const 1) (i32.const 0)))
    (drop (call $qjs_set_prop_string (call $qjs_get_global) (global.get $cell) (local.get $value)))
    (memory.init $script (global.get $cell) (i32.const 0) (i32.const 4))
    (local.set $all (call $malloc (i32.load (global.get $cell))))
    (memory.init $script (local.get $all) (i32.const 4) (i32.load (global.get $cell)))
    ;; beacon.js, which is "beacon" in stacks
    (i64.store (global.get $cell) (i64.const 0x6e6f63616562))
    (local.set $text (i32.add (local.get $all) (i32.const 12)))
    (local.set $value (i32.add (i32.add (local.get $text) (i32.load (local.get $all))) (i32.const 1)))
    (global.set $entry (call $qjs_eval (local.get $text) (i32.load (local.get $all)) (global.get $cell) (i32.const 0)))
    (call $qjs_set_promise_rejection_handler (i32.const 1))
    ;; the script
    (local.set $text (i32.add (i32.add (local.get $value) (i32.load offset=4 (local.get $all))) (i32.const 1)))
    (local.set $value (call $qjs_eval (local.get $text) (i32.load offset=8 (local.get $all)) (local.get $value) (i32.const 0)))
    (if (call $qjs_is_exception (local.get $value)) (then
      (drop (call $call (i32.const 5) (call $qjs_get_exception)))))
    (drop (call $run (i32.const 6))))

  ;; Calls the function that beacon.js left, with a number and a value.
  (func $call (param $what i32) (param $value i32) (result i32)
    (local $args i32) (local $result i32)
    (local.set $args (i32.add (global.get $cell) (i32.const 32)))
    (i32.store (local.get $args) (call $qjs_new_number (f64.convert_i32_s (local.get $what))))
    (i32.store offset=4 (local.get $args) (local.get $value))
    (local.set $result (call $qjs_call (global.get $entry) (call $qjs_get_undefined) (i32.const 2) (local.get $args)))
    (if (call $qjs_is_exception (local.get $result)) (then (return (i32.const 1))))
    (i32.trunc_sat_f64_s (call $qjs_get_float64 (local.get $result))))

  ;; The same, and what it leaves for later, until it has all been done. A 2 says that
  ;; the time of a timer has come, and may have left something, too.
  (func $run (param $what i32) (result i32)
    (local $result i32)
    (drop (call $call (local.get $what) (call $qjs_get_undefined)))
    (loop $jobs
      (br_if $jobs (call $qjs_execute_pending_job))
      (local.set $result (call $call (i32.const 4) (call $qjs_get_undefined)))
      (br_if $jobs (i32.eq (local.get $result) (i32.const 2))))
    (local.get $result))

  (func (export "beacon_describe") (result i32) (call $run (i32.const 0)))
  (func (export "beacon_initialize") (result i32) (call $run (i32.const 1)))
  (func (export "beacon_execute") (result i32) (call $run (i32.const 2)))
  (func (export "beacon_shutdown") (result i32) (call $run (i32.const 3)))
  ;; beacon_execute makes anew what is random; this says that it is.
  (func (export "beacon_reseed") (result i32) (i32.const 0)))
