;; ok
;; Nothing was granted, so nothing is there.
(func $main
  (call $refuse (call $ask (str "Echo"))) (call $refuse (call $ask (str "Forbidden"))) (call $refuse (call $ask (str "Loopback"))) (call $refuse (call $invoke (str "{\22Capability\22:\22honest\22}"))))
