//go:build unix && !linux

package shell

import "os"

// wait returns when the first process has ended. Its number might be given to
// another from here on; the group is killed at once.
func (g *group) wait() (take func() (*os.ProcessState, error)) {
	state, err := g.process.Wait()
	return func() (*os.ProcessState, error) { return state, err }
}
