;; refused
;; The memory of an instance that has a name.
(import "honest" "memory" (memory 1))
(func $main)
