//go:build !linux

package shell

import (
	"errors"
	"fmt"
	"os"
	"os/exec"
	"sync"
	"time"
)

// A process is the first one of a command, with the pipes that its group writes
// to, each of which a goroutine reads.
type process struct {
	cmd   *exec.Cmd
	pipes []*pipe
	state *os.ProcessState // and err: where the end of the process also takes it
	err   error
}

func start(cmd *exec.Cmd, out, errs *capture) (_ *process, err error) {
	p := &process{cmd: cmd}
	defer func() {
		if err != nil {
			p.close()
		}
	}()
	for _, into := range []*capture{out, errs} {
		read, write, err := os.Pipe()
		if err != nil {
			return nil, fmt.Errorf("make a pipe for the command: %w", err)
		}
		p.pipes = append(p.pipes, &pipe{read: read, write: write, into: into, done: make(chan struct{})})
	}
	cmd.Stdout, cmd.Stderr = p.pipes[0].write, p.pipes[1].write
	return p, cmd.Start()
}

// wait returns when the process has ended; until then what the group writes is
// passed on.
func (p *process) wait() {
	for _, pipe := range p.pipes {
		pipe.begin()
	}
	p.end()
}

// finish passes on what is left in the pipes, of a group that is no more.
func (p *process) finish() {
	for _, pipe := range p.pipes {
		pipe.finish()
	}
}

func (p *process) close() {
	for _, pipe := range p.pipes {
		pipe.close()
	}
}

// A pipe is one that a command writes to.
type pipe struct {
	read  *os.File
	write *os.File
	into  *capture
	done  chan struct{}
	begun bool
}

// begin reads in the background, after the command has its end of the pipe.
func (p *pipe) begin() {
	_ = p.write.Close() // our copy
	p.begun = true
	go func() {
		defer close(p.done)
		buffer, _ := buffers.Get().(*[]byte)
		defer buffers.Put(buffer)
		for {
			n, err := p.read.Read(*buffer)
			p.into.take((*buffer)[:n])
			if errors.Is(err, os.ErrDeadlineExceeded) {
				p.drain(*buffer)
				return
			}
			if err != nil {
				return
			}
		}
	}()
}

var buffers = sync.Pool{New: func() any { b := make([]byte, 32<<10); return &b }}

// finish waits until everything that was written is read.
func (p *pipe) finish() {
	timer := time.NewTimer(strayTime)
	defer timer.Stop()
	select {
	case <-p.done:
		return
	case <-timer.C:
	}
	if p.read.SetReadDeadline(time.Now()) != nil {
		_ = p.read.Close() // of a kind without deadlines
	}
	<-p.done
}

// drain reads what is in the pipe, without waiting.
func (p *pipe) drain(buffer []byte) {
	if p.read.SetReadDeadline(time.Time{}) != nil {
		return
	}
	raw, err := p.read.SyscallConn()
	if err != nil {
		return
	}
	for more := true; more; {
		err := raw.Read(func(fd uintptr) bool {
			var n int
			n, more = readNow(fd, buffer)
			p.into.take(buffer[:n])
			return true
		})
		if err != nil {
			return
		}
	}
}

func (p *pipe) close() {
	_ = p.write.Close() // again, if the command began
	_ = p.read.Close()
	if p.begun {
		<-p.done
	}
}
