;; ok
;; Beside what was granted: another path, port, method, host, user.
;; grants api
(func $main
  (call $refuse (call $ask (str "Forbidden"))) (call $refuse (call $ask (str "OtherMethod"))) (call $refuse (call $ask (str "OtherPath"))) (call $refuse (call $ask (str "DottedPath"))) (call $refuse (call $ask (str "EncodedPath")))
  (call $refuse (call $ask (str "UserInURL"))) (call $refuse (call $ask (str "HostAsUser"))))
