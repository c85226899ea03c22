(module (memory (export "memory") 1) (func (export "beacon_execute")))
