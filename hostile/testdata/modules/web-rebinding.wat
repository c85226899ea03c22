;; ok
;; A name that leads to a public address when it is looked at, and to loopback when it is dialled.
;; grants open
(func $main
  (call $refuse (call $ask (str "Rebinding"))) (call $refuse (call $ask (str "Rebinding"))) (call $refuse (call $ask (str "Rebinding"))))
