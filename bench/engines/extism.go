package main

import (
	extism "github.com/extism/go-sdk"
	"github.com/tetratelabs/wazero"
)

func extismRows() []row {
	return []row{
		{name: "Extism go-sdk, new instance", isolation: "nothing", make: extismFresh},
		{name: "Extism go-sdk, reused", isolation: "everything", make: extismReused(0)},
		{name: "Extism go-sdk, reused, with timeout_ms", isolation: "everything", make: extismReused(10_000)},
	}
}

func newExtism(guest string, timeout uint64) (*extism.CompiledPlugin, error) {
	binary, err := wasm(guest, "extism")
	if err != nil {
		return nil, err
	}
	extism.SetLogLevel(extism.LogLevelError)
	return extism.NewCompiledPlugin(background, extism.Manifest{
		Wasm: []extism.Wasm{extism.WasmData{Data: binary}}, Timeout: timeout,
	}, extism.PluginConfig{
		EnableWasi:    guest != "tiny",
		RuntimeConfig: wazero.NewRuntimeConfig().WithCloseOnContextDone(timeout > 0),
	}, nil)
}

func extismItem(p *extism.Plugin) ([]byte, error) {
	_, out, err := p.Call("run", input)
	return out, err
}

func extismFresh(guest string, _ int) (contender, func(), error) {
	c, err := newExtism(guest, 0)
	if err != nil {
		return nil, nil, err
	}
	return func(n int) error {
		var out []byte
		for range n {
			p, err := c.Instance(background, extism.PluginInstanceConfig{})
			if err != nil {
				return err
			}
			if out, err = extismItem(p); err != nil {
				return err
			}
			if err := p.Close(background); err != nil {
				return err
			}
		}
		return checked(out, nil)
	}, func() { _ = c.Close(background) }, nil
}

func extismReused(timeout uint64) func(string, int) (contender, func(), error) {
	return func(guest string, _ int) (contender, func(), error) {
		c, err := newExtism(guest, timeout)
		if err != nil {
			return nil, nil, err
		}
		p, err := c.Instance(background, extism.PluginInstanceConfig{})
		if err != nil {
			return nil, nil, err
		}
		return func(n int) error {
			var out []byte
			for range n {
				var err error
				if out, err = extismItem(p); err != nil {
					return err
				}
			}
			return checked(out, nil)
		}, func() { _ = c.Close(background) }, nil
	}
}
