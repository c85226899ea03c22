package shell

import (
	"slices"
	"strings"
)

// An environment is what commands see of the worker's.
type environment struct{ base []string }

// usual are variables that programs expect, and that are no secrets.
var usual = []string{
	"PATH", "HOME", "USER", "LOGNAME", "SHELL", "LANG", "LANGUAGE", "LC_*", "TZ", "TERM", "TMPDIR", "TMP", "TEMP",
	// of Windows
	"SYSTEMROOT", "SYSTEMDRIVE", "WINDIR", "COMSPEC", "PATHEXT", "OS", "USERNAME", "USERPROFILE", "USERDOMAIN", "COMPUTERNAME",
	"HOMEDRIVE", "HOMEPATH", "APPDATA", "LOCALAPPDATA", "PROGRAMDATA", "PROGRAMFILES*", "COMMONPROGRAMFILES*", "PROGRAMW6432", "COMMONPROGRAMW6432",
	"NUMBER_OF_PROCESSORS", "PROCESSOR_*", "PUBLIC", "ALLUSERSPROFILE",
}

// secret are variables of the worker that an asterisk does not mean.
var secret = []string{"BEACON_PASSWORD", "BEACON_JOIN_SECRET"}

// newEnvironment picks the usual variables and those that are named. It is done
// once: what the worker takes out of its environment later, stays as it was.
func newEnvironment(all, named []string) environment {
	var e environment
	for _, entry := range all {
		name, _, found := strings.Cut(entry, "=")
		if !found || name == "" {
			continue
		}
		if matches(name, usual) || matches(name, named) && (!matches(name, secret) || slices.Contains(named, name)) {
			e.base = append(e.base, entry)
		}
	}
	return e
}

// matches reports whether a name is in a list whose entries may end in an
// asterisk.
func matches(name string, list []string) bool {
	if isWindows {
		name = strings.ToUpper(name)
	}
	for _, entry := range list {
		if isWindows {
			entry = strings.ToUpper(entry)
		}
		if start, wild := strings.CutSuffix(entry, "*"); wild && strings.HasPrefix(name, start) || name == entry {
			return true
		}
	}
	return false
}
