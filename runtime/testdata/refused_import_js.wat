(module (import "gojs" "runtime.wasmExit" (func (param i32))) (memory (export "memory") 1) (func (export "_start")))
