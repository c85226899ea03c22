;; Breaks down before its entry.
(module (memory (export "memory") 1)
  (func $start unreachable)
  (start $start)
  (func (export "_start")))
