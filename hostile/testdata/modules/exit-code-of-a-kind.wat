;; ok
;; Exit codes as outputs, at the ends of what a number may be and beyond.
(func $main
  (call $must (call $output (str "ExitCode") (str "-4294967295"))) (call $must (call $output (str "ExitCode") (str "-2147483649"))) (call $must (call $output (str "ExitCode") (str "1e-400")))
  (call $must (call $output (str "ExitCode") (str "{\22a\22:1}"))) (call $must (call $output (str "ExitCode") (str "4294967296"))) (call $must (call $output (str "ExitCode") (str "4294967295")))
  (call $must (call $output (str "ExitCode") (str "-4294967295"))))
