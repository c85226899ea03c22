(module (import "beacon_v1" "launch" (func)) (memory (export "memory") 1) (func (export "_start")))
