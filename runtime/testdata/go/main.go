// A program that knows nothing of Beacon and does what its arguments say.
package main

import (
	"fmt"
	"io"
	"os"
	"strconv"
	"strings"
	"time"
)

func main() {
	if len(os.Args) < 2 {
		return
	}
	switch os.Args[1] {
	case "args":
		fmt.Printf("%q\n", os.Args[1:])
	case "stdin":
		if _, err := io.Copy(os.Stdout, os.Stdin); err != nil {
			panic(err)
		}
	case "env":
		fmt.Println(strings.Join(os.Environ(), "\n"))
	case "exit":
		code, err := strconv.Atoi(os.Args[2])
		if err != nil {
			panic(err)
		}
		fmt.Println("leaving")
		fmt.Fprintln(os.Stderr, "a line for the log")
		os.Exit(code)
	case "panic":
		panic("on purpose")
	case "sleep":
		time.Sleep(time.Hour)
	case "allocate":
		var all [][]byte
		for {
			all = append(all, make([]byte, 1<<20))
		}
	case "copy":
		in, err := os.Open(os.Args[2])
		if err != nil {
			fmt.Println(err)
			os.Exit(1)
		}
		out, err := os.Create(os.Args[3])
		if err != nil {
			fmt.Println(err)
			os.Exit(1)
		}
		if _, err := io.Copy(out, in); err != nil {
			fmt.Println(err)
			os.Exit(1)
		}
	}
}
