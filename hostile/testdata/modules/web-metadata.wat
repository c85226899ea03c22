;; ok
;; Where clouds keep credentials.
;; grants open
(func $main
  (call $refuse (call $get (str "http://169.254.169.254/latest/meta-data/"))) (call $refuse (call $get (str "http://[fd00:ec2::254]/"))) (call $refuse (call $get (str "http://[::ffff:a9fe:a9fe]/"))) (call $refuse (call $get (str "http://2852039166/")))
  (call $refuse (call $get (str "http://0xa9fea9fe/"))) (call $refuse (call $get (str "http://0251.0376.0251.0376/"))) (call $refuse (call $get (str "http://169.254.169.254.:80/"))) (call $refuse (call $get (str "http://100.100.100.200/"))))
