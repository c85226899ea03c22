;; ok
;; Capabilities that it may not call, whether there are such or not.
;; grants api
(func $main
  (call $refuse (call $invoke (str "{\22Capability\22:\22Shell\22,\22Settings\22:{\22Command\22:\22id\22}}"))) (call $refuse (call $invoke (str "{\22Capability\22:\22path-parent\22}"))) (call $refuse (call $invoke (str "{\22Capability\22:\22HONEST\22}")))
  (call $refuse (call $invoke (str "{\22Capability\22:\22honest\22,\22Action\22:\22Other\22}"))) (call $refuse (call $invoke (str "{\22Capability\22:\22\22}"))) (call $refuse (call $invoke (str "{\22Capability\22:\22../honest\22}"))))
