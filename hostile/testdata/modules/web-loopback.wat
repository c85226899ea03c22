;; ok
;; Loopback under all its names.
;; grants open
(func $main
  (call $refuse (call $ask (str "Loopback"))) (call $refuse (call $ask (str "Loopback1"))) (call $refuse (call $ask (str "Loopback2"))) (call $refuse (call $ask (str "Loopback3"))) (call $refuse (call $ask (str "Loopback4")))
  (call $refuse (call $ask (str "Loopback5"))) (call $refuse (call $ask (str "Loopback6"))) (call $refuse (call $ask (str "Loopback7"))) (call $refuse (call $ask (str "Loopback8"))) (call $refuse (call $ask (str "Loopback9"))))
