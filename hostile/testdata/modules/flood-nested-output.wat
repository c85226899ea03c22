;; ok
;; JSON that is a hundred thousand arrays deep.
(func $main
  (drop (memory.grow (i32.const 2)))
  (memory.fill (i32.const 131072) (i32.const 0x5b) (i32.const 100000))
  (call $refuse (call $output (str "N") (i32.const 131072) (i32.const 100000))) (call $refuse (call $http_open (i32.const 131072) (i32.const 60000) (i32.const 32))) (call $refuse (call $call_open (i32.const 131072) (i32.const 100000) (i32.const 32))))
