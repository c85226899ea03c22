;; ok
;; Names that mean something elsewhere.
(func $main
  (call $peek (str "C:\5ccanary")) (call $peek (str "C:canary")) (call $peek (str "\5c\5c?\5cC:\5ccanary")) (call $peek (str "\5c\5chost\5cshare\5ccanary"))
  (call $peek (str "NUL")) (call $peek (str "CON")) (call $peek (str "COM1")) (call $peek (str "aux.txt")) (call $peek (str "input.txt:stream")) (call $peek (str "input.txt::$DATA"))
  (call $peek (str "\5cDevice\5cNull")))
