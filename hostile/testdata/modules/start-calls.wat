;; ok
;; Before there is an item there is nothing to be had.
(func $early
  (call $refuse (call $work_item (i32.const 4096) (i32.const 4096) (i32.const 32))) (call $refuse (call $settings (i32.const 4096) (i32.const 4096) (i32.const 32)))
  (call $refuse (call $http_open (str "{\22URL\22:\22http://10.0.0.1/\22}") (i32.const 32))) (call $refuse (call $call_open (str "{\22Capability\22:\22Honest\22}") (i32.const 32)))
  (call $refuse (call $secret (str "key"))) (call $refuse (call $file_open (str "x") (i32.const 6) (i32.const 32))) (call $refuse (call $open (str "input.txt") (i32.const 0)))
  (call $refuse (call $open (str "new") (i32.const 1))) (call $refuse (call $output (str "N") (str "1"))) (call $refuse (call $describe (str "{}"))))
(func (export "_initialize") (call $early))
(func (export "beacon_execute") (result i32) (call $refuse (call $describe (str "{\22Capability\22:\22Other\22}"))) (i32.const 0))
