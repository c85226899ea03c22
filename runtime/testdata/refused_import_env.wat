(module (import "env" "emscripten_resize_heap" (func)) (memory (export "memory") 1) (func (export "_start")))
