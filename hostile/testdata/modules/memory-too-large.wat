;; refused
;; A memory that is larger than is allowed, from the beginning.
(memory (export "memory") 60000)
(func $main)
