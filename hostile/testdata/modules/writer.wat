;; ok
;; Makes files of names that others ask for.
(func $main (call $make (str "evil")) (call $make (str "input.txt")))
(func $make (param $path i32) (param $len i32)
  (if (i32.eqz (call $open (local.get $path) (local.get $len) (i32.const 1))) (then
    (i32.store (i32.const 16) (i32.const 0)) (i32.store (i32.const 20) (i32.const 64))
    (call $must (call $fd_write (call $fd) (i32.const 16) (i32.const 1) (i32.const 24))))))
