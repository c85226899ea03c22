(module (import "beacon_v1" "log" (func (param i64))) (memory (export "memory") 1) (func (export "_start")))
