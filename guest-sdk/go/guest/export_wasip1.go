//go:build wasip1

package guest

import "errors"

// served is the module's provider: exports are functions without a receiver, so
// they can find it nowhere else.
var (
	served     Provider
	serveCalls int
)

// Serve makes p the provider of this module. Call it once, from an init
// function: a reactor's main is never run. Off WebAssembly it does nothing.
func Serve(p Provider) {
	served = p
	serveCalls++
}

//go:wasmexport beacon_describe
func exportDescribe() int32 {
	return answer(func() error {
		if err := served.Validate(); err != nil {
			return err
		}
		p, n := pointer(string(served.Manifest()))
		if errno := importDescribe(p, n); errno != 0 {
			return errors.New("describe: " + Errno(errno).Error())
		}
		return nil
	})
}

//go:wasmexport beacon_initialize
func exportInitialize() int32 { return answer(served.Start) }

//go:wasmexport beacon_execute
func exportExecute() int32 {
	return answer(func() error {
		if err := served.Renew(); err != nil {
			return err
		}
		return served.Execute(imports{})
	})
}

//go:wasmexport beacon_shutdown
func exportShutdown() int32 { return answer(served.Stop) }

// answer calls f if the module serves one provider, and tells the host of an
// error. Outside of an item the host may have no use for the text; the number
// counts.
func answer(f func() error) int32 {
	err := errServed(serveCalls)
	if err == nil {
		err = f()
	}
	if err == nil {
		return 0
	}
	p, n := pointer(err.Error())
	importFail(p, n)
	return 1
}

func errServed(calls int) error {
	switch calls {
	case 0:
		return errors.New("the module serves no provider: call guest.Serve from func init (main is never run)")
	case 1:
		return nil
	}
	return errors.New("the module calls guest.Serve more than once: a module is one provider")
}
