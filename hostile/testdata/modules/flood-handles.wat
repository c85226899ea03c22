;; ok
;; More handles than there are.
;; grants open
(func $main (local $n i32)
  (loop $again
    (br_if $again (i32.and (i32.eqz (call $http_open (str "{\22URL\22:\22http://10.0.0.1/\22}") (i32.const 32))) (i32.lt_u (local.tee $n (i32.add (local.get $n) (i32.const 1))) (i32.const 1000)))))
  (call $refuse (i32.ge_u (i32.const 17) (local.get $n)) (; sixteen are open at most ;)))
