;; call_limit
;; One output, over and over again.
(func $main
  (loop $again (drop (call $output (str "N") (str "[1,2,3]"))) (br $again)))
