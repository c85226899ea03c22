;; ok
;; A host that was granted sends elsewhere.
;; grants api
(func $main
  (call $refuse (call $ask (str "RedirectForbidden"))) (call $refuse (call $ask (str "RedirectFile"))) (call $refuse (call $ask (str "RedirectForEver"))))
