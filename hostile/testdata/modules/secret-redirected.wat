;; ok
;; A redirect to another host takes no secret along.
;; grants api
(func $main (drop (call $ask (str "SecretRedirected"))))
