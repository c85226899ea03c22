;; timeout
;; Asks once whether it should end, so that it gets a moment to, and goes on.
(func $main (drop (call $cancelled)) (loop $again (br $again)))
