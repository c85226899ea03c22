package main

import (
	"os"

	"github.com/spf13/pflag"

	"github.com/ultravisor/beacon/submit"
)

// loginFlags say who hands in work or looks.
type loginFlags struct{ user, password string }

func (l *loginFlags) register(f *pflag.FlagSet) {
	f.StringVar(&l.user, "user", "", "who logs in, also BEACON_USER_NAME; nobody unless given")
	f.StringVar(&l.password, "password", "", "the password; better BEACON_PASSWORD, $NAME for another variable, or file:PATH")
}

// config is that of a client of a server.
func (l *loginFlags) config(server string) (submit.Config, error) {
	c := submit.Config{ServerURL: server, UserName: l.user, Password: os.Getenv("BEACON_PASSWORD")}
	if c.UserName == "" {
		c.UserName = os.Getenv("BEACON_USER_NAME")
	}
	if l.password != "" {
		var err error
		if c.Password, err = secret(l.password); err != nil {
			return c, usagef("--password: %w", err)
		}
	}
	return c, nil
}
