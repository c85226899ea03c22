;; ok
;; A secret where it does not belong: for another host, in a URL, in a body, in a name, unfinished, and one of another tenant's.
;; grants api
(func $main
  (call $refuse (call $ask (str "SecretElsewhere"))) (call $refuse (call $ask (str "SecretUnfinished"))) (call $refuse (call $ask (str "SecretInName"))) (call $refuse (call $ask (str "SecretUnknown")))
  (drop (call $ask (str "SecretInURL"))))
