;; ok
;; Does nothing at all.
(func $main)
