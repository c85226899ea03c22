;; ok
;; Numbers that are none to most, as outputs and as settings.
;; grants api
(func $main
  (call $must (call $output (str "N") (str "1e999"))) (call $must (call $output (str "StdOut") (str "[-1E+400,{\22x\22:1e999}]"))) (call $must (call $output (str "ExitCode") (str "1e999")))
  (call $must (call $invoke (str "{\22Capability\22:\22honest\22,\22Settings\22:{\22N\22:1e999}}")))
  (call $must (call $invoke (str "{\22Capability\22:\22numbers\22}"))))
