;; trapped
;; Breaks down before it has begun.
(func $early (unreachable))
(start $early)
(func $main)
