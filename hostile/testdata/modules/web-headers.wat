;; ok
;; Headers that make another request of one.
;; grants api
(func $main
  (call $refuse (call $ask (str "HeaderHost"))) (call $refuse (call $ask (str "HeaderLine"))) (call $refuse (call $ask (str "HeaderLength"))) (call $refuse (call $ask (str "HeaderChunked"))) (call $refuse (call $ask (str "HeaderUpgrade")))
  (call $refuse (call $ask (str "HeaderName"))) (call $refuse (call $ask (str "HeaderMethod"))) (call $refuse (call $ask (str "HeaderProxy"))))
