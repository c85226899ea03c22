;; ok
;; Calls somebody who breaks down, and is told so without being told more.
;; grants api
(func $main
  (call $refuse (call $invoke (str "{\22Capability\22:\22trap-names\22}"))) (call $refuse (call $invoke (str "{\22Capability\22:\22flood-forged-failure\22}"))))
