;; timeout
(module
  (memory (export "memory") 1)
  (func $start (local i32 i32 i32 i32 i32 i32 i32 i32 i32)
    (loop $l7 (loop $l6 (loop $l5 (loop $l4 (loop $l3 (loop $l2 (loop $l1 (loop $l0 (local.set 8 (i32.add (local.get 8) (i32.const 1))) (br_if $l0 (local.tee 0 (i32.add (local.get 0) (i32.const 1))))) (br_if $l1 (local.tee 1 (i32.add (local.get 1) (i32.const 1))))) (br_if $l2 (local.tee 2 (i32.add (local.get 2) (i32.const 1))))) (br_if $l3 (local.tee 3 (i32.add (local.get 3) (i32.const 1))))) (br_if $l4 (local.tee 4 (i32.add (local.get 4) (i32.const 1))))) (br_if $l5 (local.tee 5 (i32.add (local.get 5) (i32.const 1))))) (br_if $l6 (local.tee 6 (i32.add (local.get 6) (i32.const 1))))) (br_if $l7 (local.tee 7 (i32.add (local.get 7) (i32.const 1))))))
  (export "_start" (func $start)))
