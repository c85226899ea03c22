package module

// Singly makes Rewrite charge for every instruction by itself.
func (o Options) Singly() Options {
	o.singly = true
	return o
}
