(module (import "beacon_meter" "refill" (func (result i64))) (memory (export "memory") 1) (func (export "_start")))
