;; ok
;; Names of secrets, and of what might be one.
(func $main
  (call $refuse (call $secret (str "key"))) (call $refuse (call $secret (str "KEY"))) (call $refuse (call $secret (str ""))) (call $refuse (call $secret (str "*"))) (call $refuse (call $secret (str "../key")))
  (call $refuse (call $secret (str "key\00"))) (call $refuse (call $secret (str "acme/key"))) (call $refuse (call $config (str "Secrets") (i32.const 4096) (i32.const 4096) (i32.const 32)))
  (call $refuse (call $setting (str "{{secret:key}}") (i32.const 4096) (i32.const 4096) (i32.const 32))) (call $refuse (call $config (str "{{secret:key}}") (i32.const 4096) (i32.const 4096) (i32.const 32))))
