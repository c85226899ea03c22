package guest

import "errors"

// Start does what a host does before the first item: it checks the declaration
// and runs Initialize. A panic becomes an error.
func (p *Provider) Start() error {
	if err := p.Validate(); err != nil {
		return err
	}
	return guarded("initialize", p.Initialize)
}

// Renew does what a host does before each item: it runs Reseed.
func (p *Provider) Renew() error { return guarded("reseed", p.Reseed) }

// Stop does what a host does after an item: it runs Shutdown.
func (p *Provider) Stop() error { return guarded("shutdown", p.Shutdown) }

func guarded(name string, hook func() error) (err error) {
	if hook == nil {
		return nil
	}
	defer func() {
		if r := recover(); r != nil {
			err = errors.New("panic in " + name + ": " + panicText(r))
		}
	}()
	if err := hook(); err != nil {
		return errors.New(name + ": " + err.Error())
	}
	return nil
}
