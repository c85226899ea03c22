;; timeout
;; Calls somebody who never comes back, and waits.
;; grants api
(func $main
  (drop (call $invoke (str "{\22Capability\22:\22time-sleep\22}"))) (loop $again (br $again)))
