;; ok
;; Names and values of outputs that are not fit for being any.
(func $main
  (call $refuse (call $output (i32.const 0) (i32.const 1025) (str "0"))) (call $refuse (call $output (str "N") (str "{"))) (call $refuse (call $output (str "N") (str "")))
  (call $refuse (call $output (str "N") (str "1 2"))) (call $refuse (call $output (str "N") (str "NaN"))) (call $refuse (call $output (str "N") (str "'x'"))))
