;; exit -1
;; A directory where its output should be.
;; output
(func $main (call $must (call $path_create_directory (i32.const 3) (str "out.bin"))))
