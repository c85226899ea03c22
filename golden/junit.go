package golden

import (
	"encoding/xml"
	"fmt"
	"io"
	"strings"
	"time"
)

// A Report is what became of a case.
type Report struct {
	Name        string
	Took        time.Duration
	Differences []string // none means that it is as expected
}

// WriteJUnit writes reports in the format that continuous integration services
// read. suite is the provider's name.
func WriteJUnit(w io.Writer, suite string, reports []Report) error {
	type failure struct {
		Message string `xml:"message,attr"`
		Text    string `xml:",chardata"`
	}
	type testCase struct {
		Name    string   `xml:"name,attr"`
		Class   string   `xml:"classname,attr"`
		Seconds string   `xml:"time,attr"`
		Failure *failure `xml:"failure"`
	}
	type testSuite struct {
		XMLName  xml.Name   `xml:"testsuite"`
		Name     string     `xml:"name,attr"`
		Tests    int        `xml:"tests,attr"`
		Failures int        `xml:"failures,attr"`
		Errors   int        `xml:"errors,attr"`
		Seconds  string     `xml:"time,attr"`
		Cases    []testCase `xml:"testcase"`
	}
	seconds := func(d time.Duration) string { return fmt.Sprintf("%.3f", d.Seconds()) }
	s := testSuite{Name: suite, Tests: len(reports)}
	var total time.Duration
	for _, r := range reports {
		c := testCase{Name: r.Name, Class: suite, Seconds: seconds(r.Took)}
		if len(r.Differences) > 0 {
			s.Failures++
			first, _, _ := strings.Cut(r.Differences[0], "\n")
			c.Failure = &failure{first, strings.Join(r.Differences, "\n")}
		}
		s.Cases = append(s.Cases, c)
		total += r.Took
	}
	s.Seconds = seconds(total)
	if _, err := io.WriteString(w, xml.Header); err != nil {
		return err
	}
	enc := xml.NewEncoder(w)
	enc.Indent("", "  ")
	if err := enc.Encode(s); err != nil {
		return err
	}
	_, err := io.WriteString(w, "\n")
	return err
}
