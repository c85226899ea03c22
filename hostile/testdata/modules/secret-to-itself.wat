;; ok
;; A secret in a header, for the host that it is for, which sends back all that it gets.
;; grants api
(func $main
  (call $must (call $secret (str "key"))) (call $must (call $ask (str "Echo"))))
