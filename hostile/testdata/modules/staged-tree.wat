;; ok
;; A tree of odd names, for whoever cleans up.
(func $main (local $n i32) (local $at i32)
  (call $must (call $path_create_directory (i32.const 3) (str "-rf"))) (call $must (call $path_create_directory (i32.const 3) (str "-rf/ \0a*"))) (call $must (call $open (str "-rf/ \0a*/\1b[2J") (i32.const 1)))
  (call $must (call $open (str "\ff\fe\fd") (i32.const 1))) (call $must (call $open (str " ") (i32.const 1))) (call $must (call $open (str "...") (i32.const 1))) (call $must (call $open (str "\e2\80\aetxt.exe") (i32.const 1)))
  (memory.fill (i32.const 1024) (i32.const 97) (i32.const 255)) (call $must (call $path_create_directory (i32.const 3) (i32.const 1024) (i32.const 255)))
  (i32.store8 (i32.const 1279) (i32.const 47)) (memory.fill (i32.const 1280) (i32.const 98) (i32.const 255)) (call $must (call $path_create_directory (i32.const 3) (i32.const 1024) (i32.const 511))))
