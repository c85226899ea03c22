(module (memory (export "memory") 16384) (func (export "_start")))
