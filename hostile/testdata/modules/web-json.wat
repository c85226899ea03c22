;; ok
;; Requests that are not quite requests.
;; grants api
(func $main
  (call $refuse (call $http_open (str "") (i32.const 32))) (call $refuse (call $http_open (str "null,") (i32.const 32))) (call $refuse (call $http_open (str "[]") (i32.const 32))) (call $refuse (call $http_open (str "{\22URL\22:1}") (i32.const 32)))
  (call $refuse (call $http_open (str "{\22Proxy\22:\22http://127.0.0.1\22}") (i32.const 32))) (call $refuse (call $http_open (str "{} {}") (i32.const 32))) (call $refuse (call $http_open (str "{\22Redirects\22:99}") (i32.const 32)))
  (call $refuse (call $http_open (str "{\22BodyLength\22:-9}") (i32.const 32))) (call $refuse (call $http_open (str "{\22TimeoutMs\22:-9}") (i32.const 32))) (call $refuse (call $http_open (i32.const 0) (i32.const 65537) (i32.const 32)))
  (call $refuse (call $call_open (str "{\22Tenant\22:\22other\22}") (i32.const 32))) (call $refuse (call $call_open (str "{\22Settings\22:[]}") (i32.const 32))))
