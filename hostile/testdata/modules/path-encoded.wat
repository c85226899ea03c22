;; ok
;; Dots and slashes in disguise are names like others, of which there are none.
(func $main
  (call $peek (str "%2e%2e/canary")) (call $peek (str "..%2fcanary")) (call $peek (str "%2e%2e%2fcanary")) (call $peek (str "..%252fcanary"))
  (call $peek (str "..\5ccanary")) (call $peek (str "..\5c..\5ccanary")) (call $peek (str "\c0\ae\c0\ae/canary")) (call $peek (str "\c0\ae\c0\ae\c0\afcanary"))
  (call $peek (str "\ef\bc\8e\ef\bc\8e/canary")) (call $peek (str "\e2\80\a5/canary")) (call $peek (str "..\e2\88\95canary")) (call $peek (str "..\ef\bc\8fcanary"))
  (call $peek (str ".. /canary")) (call $peek (str " ../canary")) (call $peek (str "..;/canary")) (call $peek (str ".../canary")) (call $peek (str "..\0a/canary")))
