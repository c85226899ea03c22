package session

import "context"

// During runs a call that ends with the life of a session. When it fails and
// that life is over, the error is what cause says.
func During(ctx, life context.Context, cause func() error, call func(context.Context) error) error {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	defer context.AfterFunc(life, cancel)()
	err := call(ctx)
	if err != nil && life.Err() != nil {
		return cause()
	}
	return err
}
