;; ok
;; A NUL ends a name in C and not here.
(func $main
  (call $steal (str "input.txt\00/../../canary")) (call $steal (str "..\00/canary")) (call $steal (str "\00")) (call $steal (str "../canary\00.txt"))
  (call $steal (str "input.txt\00")) (call $steal (str "a\00b")))
