//go:build !unix

package session

import "io/fs"

func device(fs.FileInfo) (string, bool) { return "", false }
