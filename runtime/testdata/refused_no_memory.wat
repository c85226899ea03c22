(module (import "beacon_v1" "log" (func (param i32 i32 i32) (result i32))) (func (export "_start")))
