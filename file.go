package beacon

import (
	"encoding/json"
	"fmt"
	"io/fs"
	"os"
)

// A File is the value of an output that is too large to be held in memory: in
// JSON it is a string, the content of a file as base64. Whoever sends a result
// reads the file while it is sent, as often as it takes.
//
// The file belongs to the result: it does not change, and who has delivered or
// given up the result removes it with Remove.
type File struct {
	// Path is where the file is on this machine.
	Path string
	// Size is its size in bytes. A file that is shorter by the time it is read
	// was damaged, and cannot be sent.
	Size int64
	// Name is what the file is called in the result.
	Name string
	// Upload asks to send the content beside of the result (WorkResultUpload),
	// where the server takes that; then the output is left out.
	Upload bool
	// Optional says that the output may be left out if the content cannot be
	// sent beside of the result.
	Optional bool
}

// MarshalJSON reads the whole file into memory. It is for small files, and for
// programs that know no better.
func (f File) MarshalJSON() ([]byte, error) {
	content, err := os.ReadFile(f.Path)
	if err != nil {
		return nil, fmt.Errorf("read output file %s: %w", Excerpt(f.Name, 80), pathless(err))
	}
	if int64(len(content)) != f.Size {
		return nil, fmt.Errorf("read output file %s: it has %d bytes instead of %d", Excerpt(f.Name, 80), len(content), f.Size)
	}
	return json.Marshal(content)
}

// Remove removes the file. One that is gone already is no error.
func (f File) Remove() error {
	if err := os.Remove(f.Path); err != nil && !os.IsNotExist(err) {
		return fmt.Errorf("remove output file %s: %w", Excerpt(f.Name, 80), pathless(err))
	}
	return nil
}

// Files are the outputs that are files, by name of the output.
func (o Outputs) Files() map[string]File {
	var files map[string]File
	for name, value := range o {
		if f, ok := value.(File); ok {
			if files == nil {
				files = map[string]File{}
			}
			files[name] = f
		}
	}
	return files
}

func pathless(err error) error {
	if pe, ok := err.(*fs.PathError); ok { //nolint:errorlint // it comes straight from package os
		return pe.Err
	}
	return err
}
