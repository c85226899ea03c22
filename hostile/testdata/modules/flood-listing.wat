;; call_limit
;; A directory, listed from wherever.
(func $main (local $n i64)
  (loop $again
    (drop (call $fd_readdir (i32.const 3) (i32.const 4096) (i32.const 4096) (local.get $n) (i32.const 32)))
    (local.set $n (i64.add (i64.mul (local.get $n) (i64.const 6364136223846793005)) (i64.const 1442695040888963407)))
    (br $again)))
