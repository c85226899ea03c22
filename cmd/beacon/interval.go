package main

import (
	"fmt"
	"strconv"
	"time"
)

// An interval is a flag: a duration such as 5s, or a number of milliseconds,
// which is what the Node worker takes.
type interval time.Duration

func (i *interval) String() string {
	if *i == 0 {
		return ""
	}
	return time.Duration(*i).String()
}

// Type implements pflag.Value.
func (i *interval) Type() string { return "duration" }

// Set implements pflag.Value.
func (i *interval) Set(text string) error {
	d, err := time.ParseDuration(text)
	if ms, failed := strconv.ParseInt(text, 10, 32); failed == nil {
		d, err = milliseconds(ms), nil
	}
	if err != nil || d <= 0 {
		return fmt.Errorf("want a time above zero, such as 5s, or milliseconds")
	}
	*i = interval(d)
	return nil
}
