;; trapped
;; Names of functions that are not fit to be shown.
(func $/home/somebody/panic<goroutine-1-running> (unreachable))
(func $main (call $/home/somebody/panic<goroutine-1-running>))
