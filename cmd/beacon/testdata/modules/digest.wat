;; digest MILLISECONDS TEXT...: sleeps so long, then prints the FNV-1a hash of all
;; its arguments, each with the zero byte after it, as 16 hexadecimal digits.
(module
  (import "wasi_snapshot_preview1" "args_sizes_get" (func $sizes (param i32 i32) (result i32)))
  (import "wasi_snapshot_preview1" "args_get" (func $args (param i32 i32) (result i32)))
  (import "wasi_snapshot_preview1" "poll_oneoff" (func $poll (param i32 i32 i32 i32) (result i32)))
  (import "wasi_snapshot_preview1" "fd_write" (func $write (param i32 i32 i32 i32) (result i32)))
  (memory (export "memory") 2)
  (data (i32.const 400) "0123456789abcdef")
  (func (export "_start") (local $at i32) (local $end i32) (local $hash i64) (local $ms i64) (local $digit i32)
    (drop (call $sizes (i32.const 0) (i32.const 4)))
    (drop (call $args (i32.const 1024) (i32.const 65536)))
    (if (i32.lt_u (i32.load (i32.const 0)) (i32.const 2)) (then (unreachable)))
    (local.set $end (i32.add (i32.const 65536) (i32.load (i32.const 4))))

    (local.set $at (i32.load (i32.const 1028)))
    (block $read
      (loop $next
        (local.set $digit (i32.sub (i32.load8_u (local.get $at)) (i32.const 48)))
        (br_if $read (i32.gt_u (local.get $digit) (i32.const 9)))
        (local.set $ms (i64.add (i64.mul (local.get $ms) (i64.const 10)) (i64.extend_i32_u (local.get $digit))))
        (local.set $at (i32.add (local.get $at) (i32.const 1)))
        (br $next)))
    (if (i64.ne (local.get $ms) (i64.const 0))
      (then
        (i32.store (i32.const 16) (i32.const 1)) ;; the monotonic clock
        (i64.store (i32.const 24) (i64.mul (local.get $ms) (i64.const 1000000)))
        (drop (call $poll (i32.const 0) (i32.const 100) (i32.const 1) (i32.const 200)))))

    (local.set $hash (i64.const 0xcbf29ce484222325))
    (local.set $at (i32.load (i32.const 1028)))
    (loop $next
      (local.set $hash (i64.mul
        (i64.xor (local.get $hash) (i64.load8_u (local.get $at)))
        (i64.const 0x100000001b3)))
      (local.set $at (i32.add (local.get $at) (i32.const 1)))
      (br_if $next (i32.lt_u (local.get $at) (local.get $end))))

    (local.set $at (i32.const 316))
    (i32.store8 (i32.const 316) (i32.const 10))
    (loop $next
      (local.set $at (i32.sub (local.get $at) (i32.const 1)))
      (i32.store8 (local.get $at)
        (i32.load8_u (i32.add (i32.const 400) (i32.wrap_i64 (i64.and (local.get $hash) (i64.const 15))))))
      (local.set $hash (i64.shr_u (local.get $hash) (i64.const 4)))
      (br_if $next (i32.gt_u (local.get $at) (i32.const 300))))
    (i32.store (i32.const 500) (i32.const 300))
    (i32.store (i32.const 504) (i32.const 17))
    (drop (call $write (i32.const 1) (i32.const 500) (i32.const 1) (i32.const 508)))))
