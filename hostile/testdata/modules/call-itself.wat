;; ok
;; Calls itself, and is called by itself, as deep as is allowed.
;; grants self
(func $main
  (drop (call $invoke (str "{\22Capability\22:\22call-itself\22}"))) (drop (call $invoke (str "{\22Capability\22:\22call-itself\22}"))))
