package main

import (
	"bufio"
	_ "embed"
	"fmt"
	"io"
	"os"
	"os/exec"
	"strconv"
	"strings"
)

func processRows() []row {
	return []row{
		{name: "os/exec of true", isolation: "nothing", make: execTrue, once: true},
		{name: "Node vm, new context", isolation: "the process", make: node("vm"), once: true},
		{name: "Node worker_threads, new worker", isolation: "the process", make: node("worker"), once: true},
		{name: "Node WebAssembly, new instance", isolation: "nothing", make: node("wasm")},
	}
}

func execTrue(string, int) (contender, func(), error) {
	path, err := exec.LookPath("true")
	if err != nil {
		return nil, nil, err
	}
	return func(n int) error {
		for range n {
			if err := exec.Command(path).Run(); err != nil {
				return err
			}
		}
		return nil
	}, func() {}, nil
}

//go:embed items.mjs
var items_ string

// node keeps a process of Node that is told how many items to do. Its time on
// the processor is known when it ends, so it is asked: each answer has it.
func node(kind string) func(string, int) (contender, func(), error) {
	return func(guest string, _ int) (contender, func(), error) {
		path, err := exec.LookPath("node")
		if err != nil {
			return nil, nil, err
		}
		cmd := exec.Command(path, "--input-type=module", "-e", items_, kind, *guests+"/"+guest+"-plain.wasm", string(input), string(answer))
		cmd.Stderr = os.Stderr
		in, err := cmd.StdinPipe()
		if err != nil {
			return nil, nil, err
		}
		out, err := cmd.StdoutPipe()
		if err != nil {
			return nil, nil, err
		}
		if err := cmd.Start(); err != nil {
			return nil, nil, err
		}
		lines := bufio.NewScanner(out)
		return func(n int) error {
			if _, err := fmt.Fprintln(in, n); err != nil {
				return err
			}
			if !lines.Scan() {
				return io.ErrUnexpectedEOF
			}
			text, ok := strings.CutPrefix(lines.Text(), "done ")
			used, err := strconv.Atoi(text)
			if !ok || err != nil {
				return fmt.Errorf("node: %s", lines.Text())
			}
			elsewhere.Add(int64(used) * 1000)
			return nil
		}, func() { _ = in.Close(); _ = cmd.Wait() }, nil
	}
}
