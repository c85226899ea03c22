;; Leaves a trace everywhere: a global, the memory, a table, a file, an open
;; descriptor. The output Seen has a digit for each trace that is there already.
(module
  (import "beacon_v1" "output" (func $output (param i32 i32 i32 i32) (result i32)))
  (import "beacon_v1" "file_open" (func $open (param i32 i32 i32 i32) (result i32)))
  (import "beacon_v1" "file_size" (func $size (param i32 i32) (result i32)))
  (memory (export "memory") 1)
  (table $t 1 10 funcref)
  (global $global (mut i32) (i32.const 0))
  (data (i32.const 0) "Seen")
  (data (i32.const 16) "left.txt")
  (data $passive "x")
  (func $f) (elem declare func $f)
  (func (export "beacon_execute") (result i32)
    (i32.store8 (i32.const 64) (i32.const 34))
    (i32.store8 (i32.const 65) (i32.add (i32.const 48) (global.get $global)))
    (i32.store8 (i32.const 66) (i32.add (i32.const 48) (i32.load (i32.const 1024))))
    (i32.store8 (i32.const 67) (i32.add (i32.const 47) (memory.size)))
    (i32.store8 (i32.const 68) (i32.add (i32.const 47) (table.size $t)))
    (i32.store8 (i32.const 69) (i32.sub (i32.const 49) (ref.is_null (table.get $t (i32.const 0)))))
    ;; a descriptor 0 of an earlier item
    (i32.store8 (i32.const 70) (i32.add (i32.const 48) (i32.eqz (call $size (i32.const 0) (i32.const 128)))))
    ;; write, create, fail if it exists
    (i32.store8 (i32.const 71) (i32.add (i32.const 48)
      (i32.ne (call $open (i32.const 16) (i32.const 8) (i32.const 38) (i32.const 136)) (i32.const 0))))
    (i32.store8 (i32.const 72) (i32.const 34))
    (global.set $global (i32.const 1))
    (i32.store (i32.const 1024) (i32.const 1))
    (drop (memory.grow (i32.const 1)))
    (drop (table.grow $t (ref.null func) (i32.const 1)))
    (table.set $t (i32.const 0) (ref.func $f))
    (memory.init $passive (i32.const 2000) (i32.const 0) (i32.const 1)) ;; breaks down if it is dropped
    (data.drop $passive)
    (call $output (i32.const 0) (i32.const 4) (i32.const 64) (i32.const 9))))
