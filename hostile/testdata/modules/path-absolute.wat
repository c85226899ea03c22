;; ok
;; Names that begin at the root.
(func $main
  (call $steal (str "/etc/passwd")) (call $steal (str "//etc/passwd")) (call $steal (str "/work/../etc/passwd")) (call $steal (str "/"))
  (call $steal (str "/.")) (call $steal (str "/..")) (call $steal (str "/work/input.txt")) (call $steal (str "///")) (call $steal (str "/tmp/canary")))
