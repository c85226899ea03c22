//go:build unix && !linux

package confine

import "errors"

// Apply puts the rules into force, as far as the system can.
func Apply(r Rules) Report {
	var report Report
	if err := limitUnix(r); err != nil {
		report.lacks("resource limits", err)
	}
	report.lacks("restriction of files, system calls and memory", errors.New("this system has none that is known here"))
	return report
}
