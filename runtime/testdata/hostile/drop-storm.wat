;; timeout
(module
  (memory (export "memory") 1)
  (data $d "x")
  (elem $e func)
  (func $start
    (loop $again
      (data.drop $d) (elem.drop $e)
      (br $again)))
  (export "_start" (func $start)))
