;; ok
;; Numbers that are none to most, as an output, and as settings of somebody who makes nothing of them.
;; grants api
(func $main
  (call $refuse (call $output (str "N") (str "1e999"))) (call $refuse (call $output (str "N") (str "[{\22x\22:\22\5c\22\22},-1E+400]")))
  (call $must (call $output (str "N") (str "[1e308,-0,1E-999,\221e999\22,\22[[[\22]")))
  (call $must (call $invoke (str "{\22Capability\22:\22honest\22,\22Settings\22:{\22N\22:1e999}}"))))
