;; timeout
;; A server that says that it speaks something else from now on, and says nothing.
;; grants api
(func $main (drop (call $ask (str "Upgrade"))) (loop $again (br $again)))
