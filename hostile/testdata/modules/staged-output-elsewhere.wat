;; ok
;; Says that its file belongs somewhere else.
(func $main
  (call $must (call $output (str "OutputFilename") (str "\22../../canary\22"))) (call $must (call $output (str "OutputData") (str "\22eA==\22")))
  (call $must (call $output (str "OutputFiles") (str "[{\22Filename\22:\22/etc/passwd\22,\22Data\22:\22OutputData\22}]"))) (call $must (call $output (str "OutputSize") (str "-1"))))
