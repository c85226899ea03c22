;; timeout
;; A server that does not answer.
;; grants api
(func $main (drop (call $ask (str "Silent"))) (loop $again (br $again)))
