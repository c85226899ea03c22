;; ok
;; Names with dots that lead out of the item's directory.
(func $main
  (call $steal (str "../canary")) (call $steal (str "../../canary")) (call $steal (str "../../../canary"))
  (call $steal (str "../../../../../../../../../../../../etc/passwd"))
  (call $steal (str "input.txt/../../canary")) (call $steal (str "./.././canary")) (call $steal (str "..//canary"))
  (call $must (call $path_create_directory (i32.const 3) (str "a")))
  (call $steal (str "a/../../canary")) (call $steal (str "a/../a/../../../canary")) (call $steal (str "a/b/../../../canary"))
  (call $steal (str "..")) (call $steal (str "../")) (call $steal (str "a/../..")) (call $steal (str "../.")))
