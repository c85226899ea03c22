;; ok
;; Outputs that others call for, and cannot all be told.
(func $main
  (call $must (call $output (str "N") (str "1e999"))) (call $must (call $output (str "M") (str "{\22N\22:[1e400]}"))) (call $must (call $output (str "ExitCode") (str "1e999"))))
