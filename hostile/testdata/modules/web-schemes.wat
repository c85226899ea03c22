;; ok
;; What is not HTTP.
;; grants open
(func $main
  (call $refuse (call $get (str "file:///etc/passwd"))) (call $refuse (call $get (str "gopher://127.0.0.1:70/"))) (call $refuse (call $get (str "ftp://127.0.0.1/"))) (call $refuse (call $get (str "unix:///var/run/docker.sock")))
  (call $refuse (call $get (str "data:text/plain,x"))) (call $refuse (call $get (str "javascript:x"))) (call $refuse (call $get (str "//127.0.0.1/"))) (call $refuse (call $get (str "/etc/passwd"))) (call $refuse (call $get (str "")))
  (call $refuse (call $get (str "http://"))) (call $refuse (call $get (str "http:///x"))) (call $refuse (call $get (str "http:127.0.0.1"))) (call $refuse (call $get (str "ws://127.0.0.1/"))))
