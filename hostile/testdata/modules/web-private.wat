;; ok
;; Addresses of networks that are nobody else's.
;; grants open
(func $main
  (call $refuse (call $get (str "http://10.0.0.1/"))) (call $refuse (call $get (str "http://172.16.0.1/"))) (call $refuse (call $get (str "http://192.168.1.1/"))) (call $refuse (call $get (str "http://100.64.0.1/")))
  (call $refuse (call $get (str "http://[fc00::1]/"))) (call $refuse (call $get (str "http://[fe80::1]/"))) (call $refuse (call $get (str "http://[ff02::1]/"))) (call $refuse (call $get (str "http://224.0.0.1/")))
  (call $refuse (call $get (str "http://255.255.255.255/"))) (call $refuse (call $get (str "http://0.0.0.0/"))) (call $refuse (call $get (str "http://[::]/"))))
