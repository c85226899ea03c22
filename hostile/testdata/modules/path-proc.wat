;; ok
;; What systems keep in files of their own.
(func $main
  (call $peek (str "/proc/self/environ")) (call $peek (str "proc/self/environ")) (call $peek (str "/proc/self/mem")) (call $peek (str "/proc/self/fd/3"))
  (call $peek (str "/proc/self/cwd/canary")) (call $peek (str "/proc/self/root/etc/passwd")) (call $peek (str "/proc/1/cmdline"))
  (call $peek (str "/sys/kernel/notes")) (call $peek (str "/dev/fd/0")) (call $peek (str "/dev/zero")) (call $peek (str "/dev/stdin")) (call $peek (str "dev/null"))
  (call $peek (str "/home")) (call $peek (str "~/.ssh/id_rsa")) (call $peek (str "$HOME/.profile")))
