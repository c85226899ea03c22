;; Wants all the memory there can be.
(module (memory (export "memory") 65536) (func (export "_start")))
