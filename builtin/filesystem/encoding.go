package filesystem

import (
	"encoding/base64"
	"encoding/binary"
	"encoding/hex"
	"errors"
	"fmt"
	"strings"
	"unicode/utf16"
	"unicode/utf8"

	"github.com/ultravisor/beacon"
)

// An encoding turns bytes into text and back, by the names that Node gives
// them. What cannot be turned back without a loss is an error of encode, and is
// shown as well as it goes by decode.
type encoding struct {
	decode func(b []byte) (text string, exact bool)
	encode func(text string) ([]byte, error)
}

func encodingOf(name string) (encoding, error) {
	switch strings.ToLower(name) {
	case "", "utf8", "utf-8":
		return encoding{decodeUTF8, func(s string) ([]byte, error) { return []byte(s), nil }}, nil
	case "base64":
		return encoding{exactly(base64.StdEncoding.EncodeToString), encodeBase64}, nil
	case "base64url":
		return encoding{exactly(base64.RawURLEncoding.EncodeToString), encodeBase64}, nil
	case "hex":
		return encoding{exactly(hex.EncodeToString), encodeHex}, nil
	case "latin1", "binary":
		return encoding{exactly(decodeLatin1), func(s string) ([]byte, error) { return encodeBytes(s, 0xff, "latin1") }}, nil
	case "ascii":
		return encoding{decodeASCII, func(s string) ([]byte, error) { return encodeBytes(s, 0x7f, "ascii") }}, nil
	case "utf16le", "utf-16le", "ucs2", "ucs-2":
		return encoding{decodeUTF16, encodeUTF16}, nil
	}
	return encoding{}, fmt.Errorf("Unknown encoding: %s", beacon.Excerpt(name, 80)) //nolint:staticcheck // as Node says it
}

func exactly(decode func([]byte) string) func([]byte) (string, bool) {
	return func(b []byte) (string, bool) { return decode(b), true }
}

func decodeUTF8(b []byte) (string, bool) {
	if utf8.Valid(b) {
		return string(b), true
	}
	return strings.ToValidUTF8(string(b), "\ufffd"), false
}

func decodeLatin1(b []byte) string {
	var s strings.Builder
	s.Grow(len(b))
	for _, c := range b {
		s.WriteRune(rune(c))
	}
	return s.String()
}

// decodeASCII drops the highest bit, as Node does.
func decodeASCII(b []byte) (string, bool) {
	out := make([]byte, len(b))
	exact := true
	for i, c := range b {
		out[i] = c & 0x7f
		exact = exact && c < 0x80
	}
	return string(out), exact
}

func decodeUTF16(b []byte) (string, bool) {
	units := make([]uint16, len(b)/2)
	for i := range units {
		units[i] = binary.LittleEndian.Uint16(b[2*i:])
	}
	runes := utf16.Decode(units)
	text := string(runes)
	again, err := encodeUTF16(text)
	return text, err == nil && string(again) == string(b)
}

func encodeUTF16(s string) ([]byte, error) {
	var b []byte
	for _, unit := range utf16.Encode([]rune(s)) {
		b = binary.LittleEndian.AppendUint16(b, unit)
	}
	return b, nil
}

func encodeBytes(s string, highest rune, name string) ([]byte, error) {
	b := make([]byte, 0, len(s))
	for _, r := range s {
		if r > highest {
			return nil, fmt.Errorf("Content has the character %q, which %s does not have", r, name) //nolint:staticcheck // the name of a setting
		}
		b = append(b, byte(r))
	}
	return b, nil
}

func encodeHex(s string) ([]byte, error) {
	b, err := hex.DecodeString(s)
	if err != nil {
		return nil, errors.New("Content is not hexadecimal") //nolint:staticcheck // the name of a setting
	}
	return b, nil
}

// encodeBase64 takes both alphabets, with padding, without, and with white
// space, as Node does.
func encodeBase64(s string) ([]byte, error) {
	s = strings.NewReplacer("-", "+", "_", "/", " ", "", "\n", "", "\r", "", "\t", "").Replace(s)
	b, err := base64.RawStdEncoding.DecodeString(strings.TrimRight(s, "="))
	if err != nil {
		return nil, errors.New("Content is not base64") //nolint:staticcheck // the name of a setting
	}
	return b, nil
}
