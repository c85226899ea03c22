package runtime

import (
	"encoding/json"
	"strings"

	"github.com/ultravisor/beacon"
	"github.com/ultravisor/beacon/hostfuncs"
)

// maxArguments is what a program may get, in bytes; some of WASI's limit of
// 1 MiB is left for the program's name.
const maxArguments = 1<<20 - 4096

// arguments are the words for a plain program, from the settings Args (a JSON
// array), or Command and Parameters (text, split the way a shell does). given
// is false when none of them is set. {SourcePath} and {OutputPath} are replaced
// in each word by itself, after splitting: a file name never becomes two words.
func arguments(job *beacon.Job) (args []string, given bool, err error) {
	settings := job.Item.Settings
	tooLong := func() ([]string, bool, error) {
		return nil, false, beacon.Errorf(beacon.Invalid, "the arguments take more than %d bytes: hand over long texts in a file or on standard input", maxArguments)
	}
	// Many short words take much more memory than their text.
	const escape = 6 // bytes of JSON for one
	if len(settings["Args"]) > escape*maxArguments || len(settings["Command"])+len(settings["Parameters"]) > escape*maxArguments ||
		len(settings.Text("Command"))+len(settings.Text("Parameters")) > maxArguments {
		return tooLong()
	}
	switch {
	case settings.Has("Args"):
		if err := json.Unmarshal([]byte(settings.Text("Args")), &args); err != nil {
			return nil, false, beacon.Errorf(beacon.Invalid, "setting Args is not a JSON array of texts: %w", err)
		}
	case settings.Has("Command") || settings.Has("Parameters"):
		for _, name := range []string{"Command", "Parameters"} {
			words, err := split(settings.Text(name))
			if err != nil {
				return nil, false, beacon.Errorf(beacon.Invalid, "setting %s: %w", name, err)
			}
			args = append(args, words...)
		}
	default:
		return nil, false, nil
	}
	paths := strings.NewReplacer(
		"{SourcePath}", hostfuncs.GuestPath(job.Source),
		"{OutputPath}", hostfuncs.GuestPath(job.Output),
	)
	total := 0
	for i, arg := range args {
		args[i] = paths.Replace(arg)
		if total += len(args[i]) + 1; total > maxArguments {
			return tooLong()
		}
		if strings.ContainsRune(args[i], 0) {
			return nil, false, beacon.Errorf(beacon.Invalid, "an argument contains a NUL character")
		}
	}
	return args, true, nil
}

// split takes text apart at spaces, outside of quotes. In single quotes all
// characters stand for themselves; elsewhere a backslash quotes the next one.
func split(text string) ([]string, error) {
	var words []string
	var word strings.Builder
	inWord := false
	quote := rune(0)
	escaped := false
	for _, r := range text {
		switch {
		case escaped:
			word.WriteRune(r)
			escaped = false
		case r == '\\' && quote != '\'':
			escaped, inWord = true, true
		case quote != 0:
			if r == quote {
				quote = 0
			} else {
				word.WriteRune(r)
			}
		case r == '\'' || r == '"':
			quote, inWord = r, true
		case r == ' ' || r == '\t' || r == '\n' || r == '\r':
			if inWord {
				words = append(words, word.String())
				word.Reset()
				inWord = false
			}
		default:
			word.WriteRune(r)
			inWord = true
		}
	}
	if quote != 0 || escaped {
		return nil, beacon.Errorf(beacon.Invalid, "a quote is not closed: %s", beacon.Excerpt(text, 80))
	}
	if inWord {
		words = append(words, word.String())
	}
	return words, nil
}
