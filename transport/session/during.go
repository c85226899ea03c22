package session

import "context"

// During runs a call that ends with the life of a session. When it fails and
// that life is over, the error is what cause says. After that life nothing is
// called: the server would have a request that nobody hears the answer to.
func During(ctx, life context.Context, cause func() error, call func(context.Context) error) error {
	if life.Err() != nil {
		return cause()
	}
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	defer context.AfterFunc(life, cancel)()
	err := call(ctx)
	if err != nil && life.Err() != nil {
		return cause()
	}
	return err
}
