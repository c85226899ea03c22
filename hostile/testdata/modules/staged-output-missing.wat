;; exit -1
;; No output where there should be one.
;; output
(func $main (call $refuse (call $path_symlink (str "../canary") (i32.const 3) (str "out.bin"))))
