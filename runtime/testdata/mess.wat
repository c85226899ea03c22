;; Does what the setting Program says, and leaves as much behind as it can. First
;; it reports, in the output Seen, what it finds: 16 numbers of 32 bits.
;; A step of the program is a letter and two numbers of eight hexadecimal digits.
(module
  (import "beacon_v1" "setting" (func $setting (param i32 i32 i32 i32 i32) (result i32)))
  (import "beacon_v1" "output" (func $output (param i32 i32 i32 i32) (result i32)))
  (import "beacon_v1" "progress" (func $progress (param f64 i32 i32 i32 i32) (result i32)))
  (import "beacon_v1" "log" (func $log (param i32 i32 i32) (result i32)))
  (import "beacon_v1" "file_open" (func $open (param i32 i32 i32 i32) (result i32)))
  (import "beacon_v1" "file_size" (func $size (param i32 i32) (result i32)))
  (import "wasi_snapshot_preview1" "random_get" (func $random (param i32 i32) (result i32)))
  (import "wasi_snapshot_preview1" "fd_fdstat_get" (func $fdstat (param i32 i32) (result i32)))
  (import "wasi_snapshot_preview1" "fd_fdstat_set_flags" (func $fdflags (param i32 i32) (result i32)))
  (import "wasi_snapshot_preview1" "fd_close" (func $fdclose (param i32) (result i32)))
  (import "wasi_snapshot_preview1" "fd_renumber" (func $renumber (param i32 i32) (result i32)))
  (import "wasi_snapshot_preview1" "path_open" (func $pathopen (param i32 i32 i32 i32 i32 i64 i64 i32 i32) (result i32)))
  (import "wasi_snapshot_preview1" "proc_exit" (func $exit (param i32)))
  (type $v (func (result i32)))
  (memory (export "memory") 3 40)
  (table $t 4 16 funcref)
  (table $x 2 8 externref)
  (elem (table $t) (i32.const 0) func $zero $one)
  (elem $passive func $one $zero)
  (elem declare func $one)
  (global $i (mut i32) (i32.const 11))
  (global $l (export "l") (mut i64) (i64.const 12))
  (global $s (mut f32) (f32.const 1.5))
  (global $d (mut f64) (f64.const 2.5))
  (global $at (mut i32) (i32.const 0))
  (global $before (mut i32) (i32.const 0))
  (data (i32.const 16) "Program")
  (data (i32.const 32) "Seen")
  (data (i32.const 48) "left.txt")
  (data (i32.const 70000) "some data on the second page")
  (data $message "passive")
  (func $zero (result i32) (i32.const 0))
  (func $one (result i32) (i32.const 1))
  ;; the start function and initialisation leave something, too
  (func $start (global.set $i (i32.add (global.get $i) (i32.const 100))))
  (start $start)
  (func (export "_initialize")
    (i32.store (i32.const 100000) (i32.const 77))
    (drop (call $fdflags (i32.const 1) (i32.const 4)))
    (drop (memory.grow (i32.const 1))))
  (func (export "beacon_initialize") (result i32)
    (global.set $before (i32.add (global.get $before) (i32.const 1)))
    (i32.store8 (i32.const 200000) (i32.const 5))
    (i32.const 0))

  ;; a report is JSON text: [n,n,...]; the buffer begins at 1024
  (func $put (param $n i32) (local $shift i32) (local $digit i32)
    (i32.store8 (global.get $at) (i32.const 34))
    (local.set $shift (i32.const 28))
    (loop $more
      (local.set $digit (i32.and (i32.shr_u (local.get $n) (local.get $shift)) (i32.const 15)))
      (global.set $at (i32.add (global.get $at) (i32.const 1)))
      (i32.store8 (global.get $at)
        (i32.add (local.get $digit) (select (i32.const 87) (i32.const 48) (i32.gt_u (local.get $digit) (i32.const 9)))))
      (local.set $shift (i32.sub (local.get $shift) (i32.const 4)))
      (br_if $more (i32.ge_s (local.get $shift) (i32.const 0))))
    (i32.store8 offset=1 (global.get $at) (i32.const 34))
    (i32.store8 offset=2 (global.get $at) (i32.const 44))
    (global.set $at (i32.add (global.get $at) (i32.const 3))))
  (func $sum (result i32) (local $at i32) (local $sum i32)
    (loop $more
      (local.set $sum (i32.add (i32.mul (local.get $sum) (i32.const 31)) (i32.load (local.get $at))))
      (local.set $at (i32.add (local.get $at) (i32.const 4)))
      (br_if $more (i32.lt_u (local.get $at) (i32.shl (memory.size) (i32.const 16)))))
    (local.get $sum))
  (func $report (local $i i32) (local $f32 f32) (local $sum i32)
    (local.set $sum (call $sum))
    (global.set $at (i32.const 1024))
    (i32.store8 (i32.const 1023) (i32.const 91))
    (call $put (local.get $sum))
    (call $put (memory.size))
    (call $put (global.get $i))
    (call $put (i32.wrap_i64 (global.get $l)))
    (call $put (i32.reinterpret_f32 (global.get $s)))
    (call $put (i32.wrap_i64 (i64.reinterpret_f64 (global.get $d))))
    (call $put (global.get $before))
    (call $put (table.size $t))
    (call $put (table.size $x))
    (call $put (call_indirect (type $v) (i32.const 0)))
    (call $put (call_indirect (type $v) (i32.const 1)))
    (call $put (ref.is_null (table.get $t (i32.const 2))))
    (call $put (ref.is_null (table.get $x (i32.const 0))))
    ;; descriptors of both interfaces
    (call $put (call $size (i32.const 0) (i32.const 3000)))
    (call $put (call $size (i32.const 1) (i32.const 3000)))
    (local.set $i (i32.const 0))
    (loop $more
      (i64.store (i32.const 3016) (i64.const 0))
      (call $put (i32.add (i32.shl (call $fdstat (local.get $i) (i32.const 3016)) (i32.const 16)) (i32.load (i32.const 3016))))
      (local.set $i (i32.add (local.get $i) (i32.const 1)))
      (br_if $more (i32.lt_u (local.get $i) (i32.const 8))))
    (i32.store8 (i32.sub (global.get $at) (i32.const 1)) (i32.const 93))
    (drop (call $output (i32.const 32) (i32.const 4) (i32.const 1023) (i32.sub (global.get $at) (i32.const 1023)))))

  (func $hex (param $at i32) (result i32) (local $n i32) (local $end i32) (local $c i32)
    (local.set $end (i32.add (local.get $at) (i32.const 8)))
    (loop $more
      (local.set $c (i32.load8_u (local.get $at)))
      (local.set $n (i32.or (i32.shl (local.get $n) (i32.const 4))
        (i32.sub (local.get $c) (select (i32.const 87) (i32.const 48) (i32.gt_u (local.get $c) (i32.const 96))))))
      (local.set $at (i32.add (local.get $at) (i32.const 1)))
      (br_if $more (i32.lt_u (local.get $at) (local.get $end))))
    (local.get $n))
  (func $deep (param $n i32) (result i32)
    (if (i32.eqz (local.get $n)) (then (return (i32.const 0))))
    (i32.add (i32.const 1) (call $deep (i32.sub (local.get $n) (i32.const 1)))))
  ;; where in the memory a is: never in the program itself, at 8192 and up
  (func $place (param $a i32) (result i32)
    (local.set $a (i32.rem_u (local.get $a) (i32.sub (i32.shl (memory.size) (i32.const 16)) (i32.const 8))))
    (select (local.get $a) (i32.add (local.get $a) (i32.const 20000)) (i32.gt_u (local.get $a) (i32.const 20000))))

  (func (export "beacon_execute") (result i32) (local $p i32) (local $end i32) (local $op i32) (local $a i32) (local $b i32)
    (call $report)
    (drop (call $setting (i32.const 16) (i32.const 7) (i32.const 8192) (i32.const 10000) (i32.const 3000)))
    (local.set $p (i32.const 8192))
    (local.set $end (i32.add (local.get $p) (i32.load (i32.const 3000))))
    (block $done
      (loop $next
        (br_if $done (i32.ge_u (local.get $p) (local.get $end)))
        (local.set $op (i32.load8_u (local.get $p)))
        (local.set $a (call $hex (i32.add (local.get $p) (i32.const 1))))
        (local.set $b (call $hex (i32.add (local.get $p) (i32.const 9))))
        (local.set $p (i32.add (local.get $p) (i32.const 17)))
        ;; w: a number
        (if (i32.eq (local.get $op) (i32.const 0x77)) (then (i32.store (call $place (local.get $a)) (local.get $b))))
        ;; f: many
        (if (i32.eq (local.get $op) (i32.const 0x66)) (then
          (local.set $a (call $place (local.get $a)))
          (memory.fill (local.get $a) (local.get $b) (i32.rem_u (local.get $b)
            (i32.sub (i32.shl (memory.size) (i32.const 16)) (local.get $a))))))
        ;; c: copies
        (if (i32.eq (local.get $op) (i32.const 0x63)) (then
          (memory.copy (call $place (local.get $a)) (call $place (local.get $b)) (i32.const 8))))
        ;; m: of a passive segment
        (if (i32.eq (local.get $op) (i32.const 0x6d)) (then
          (memory.init $message (call $place (local.get $a)) (i32.const 0) (i32.const 7))))
        ;; g: grows
        (if (i32.eq (local.get $op) (i32.const 0x67)) (then (drop (memory.grow (i32.rem_u (local.get $b) (i32.const 9))))))
        ;; v: all globals
        (if (i32.eq (local.get $op) (i32.const 0x76)) (then
          (global.set $i (local.get $a))
          (global.set $l (i64.extend_i32_u (local.get $b)))
          (global.set $s (f32.reinterpret_i32 (local.get $a)))
          (global.set $d (f64.promote_f32 (f32.convert_i32_s (local.get $b))))
          (global.set $before (local.get $b))))
        ;; o, p: opens a file, in both ways
        (if (i32.eq (local.get $op) (i32.const 0x6f)) (then
          (drop (call $open (i32.const 48) (i32.const 8) (i32.const 7) (i32.const 3000)))))
        (if (i32.eq (local.get $op) (i32.const 0x70)) (then
          (drop (call $pathopen (i32.const 3) (i32.const 0) (i32.const 48) (i32.const 8) (i32.const 1)
            (i64.const 66) (i64.const 0) (i32.const 0) (i32.const 3000)))))
        ;; k, n, b: closes, renumbers, changes flags
        (if (i32.eq (local.get $op) (i32.const 0x6b)) (then (drop (call $fdclose (i32.rem_u (local.get $a) (i32.const 8))))))
        (if (i32.eq (local.get $op) (i32.const 0x6e)) (then
          (drop (call $renumber (i32.rem_u (local.get $a) (i32.const 8)) (i32.rem_u (local.get $b) (i32.const 8))))))
        (if (i32.eq (local.get $op) (i32.const 0x62)) (then
          (drop (call $fdflags (i32.rem_u (local.get $a) (i32.const 8)) (i32.and (local.get $b) (i32.const 5))))))
        ;; r: random bytes
        (if (i32.eq (local.get $op) (i32.const 0x72)) (then (drop (call $random (call $place (local.get $a)) (i32.const 8)))))
        ;; P: reports progress
        (if (i32.eq (local.get $op) (i32.const 0x50)) (then
          (drop (call $progress (f64.const 1) (i32.const 0) (i32.const 0) (i32.const 0) (i32.const 0)))))
        ;; d: calls deeply
        (if (i32.eq (local.get $op) (i32.const 0x64)) (then (drop (call $deep (i32.rem_u (local.get $b) (i32.const 5000))))))
        ;; what cannot be put back: T, G, F, C, I table; D, E segments
        (if (i32.eq (local.get $op) (i32.const 0x54)) (then (table.set $t (i32.const 0) (ref.func $one))))
        (if (i32.eq (local.get $op) (i32.const 0x47)) (then
          (drop (table.grow $t (ref.func $one) (i32.const 1))) (drop (table.grow $x (ref.null extern) (i32.const 1)))))
        (if (i32.eq (local.get $op) (i32.const 0x46)) (then (table.fill $t (i32.const 1) (ref.func $zero) (i32.const 2))))
        (if (i32.eq (local.get $op) (i32.const 0x43)) (then (table.copy $t $t (i32.const 0) (i32.const 1) (i32.const 1))))
        (if (i32.eq (local.get $op) (i32.const 0x49)) (then (table.init $t $passive (i32.const 2) (i32.const 0) (i32.const 1))))
        (if (i32.eq (local.get $op) (i32.const 0x44)) (then (data.drop $message)))
        (if (i32.eq (local.get $op) (i32.const 0x45)) (then (elem.drop $passive)))
        ;; other ends: X traps, Q exits, N fails
        (if (i32.eq (local.get $op) (i32.const 0x58)) (then unreachable))
        (if (i32.eq (local.get $op) (i32.const 0x51)) (then (call $exit (local.get $b))))
        (if (i32.eq (local.get $op) (i32.const 0x4e)) (then (return (i32.const 3))))
        (br $next)))
    (i32.const 0)))
