package origin

import (
	"bytes"
	"crypto/rand"
	"errors"
	"fmt"
	"strings"

	"aead.dev/minisign"

	"github.com/ultravisor/beacon"
)

// SignatureExtension is that of the file beside a module that holds its
// signature, as minisign has it.
const SignatureExtension = ".minisig"

// maxSignature is the largest signature, in bytes; they have a few hundred.
const maxSignature = 16 << 10

// ParseKey reads a public key: the base64 line of minisign, or its whole file.
func ParseKey(text string) (minisign.PublicKey, error) {
	var key minisign.PublicKey
	if err := key.UnmarshalText([]byte(strings.TrimSpace(text))); err != nil {
		return key, beacon.Errorf(beacon.Invalid, "key %q is not a minisign public key, such as RWQ…: %w", beacon.Excerpt(text, 80), err)
	}
	return key, nil
}

// KeyID is the number of a key, as minisign shows it.
func KeyID(key minisign.PublicKey) string { return fmt.Sprintf("%X", key.ID()) }

// parseSignature reads a signature, which strangers may have written.
func parseSignature(raw []byte) (s minisign.Signature, err error) {
	defer func() {
		if recover() != nil { // the library is not to be trusted with that
			err = errors.New("its signature cannot be read")
		}
	}()
	if len(raw) > maxSignature || bytes.ContainsRune(raw, 0) {
		return s, errors.New("its signature cannot be read")
	}
	if err := s.UnmarshalText(raw); err != nil {
		return s, fmt.Errorf("its signature cannot be read: %s", beacon.Excerpt(err.Error(), 100))
	}
	return s, nil
}

// GenerateKey makes a pair of keys as minisign's files hold them. With a
// password the secret one is encrypted.
func GenerateKey(password string) (secret, public []byte, err error) {
	pub, key, err := minisign.GenerateKey(rand.Reader)
	if err != nil {
		return nil, nil, fmt.Errorf("make a key: %w", err)
	}
	if password == "" {
		secret, err = key.MarshalText()
	} else {
		secret, err = minisign.EncryptKey(password, key)
	}
	if err != nil {
		return nil, nil, fmt.Errorf("write a key: %w", err)
	}
	public, err = pub.MarshalText()
	if err != nil {
		return nil, nil, fmt.Errorf("write a key: %w", err)
	}
	return secret, public, nil
}

// IsEncrypted reports whether a secret key takes a password.
func IsEncrypted(secret []byte) bool { return minisign.IsEncrypted(secret) }

// Sign makes the signature of a module by a secret key in minisign's form.
// comment is signed, too.
func Sign(binary, secret []byte, password, comment string) ([]byte, error) {
	if strings.ContainsAny(comment, "\r\n") {
		return nil, beacon.Errorf(beacon.Invalid, "the comment of a signature is one line")
	}
	var key minisign.PrivateKey
	var err error
	if minisign.IsEncrypted(secret) {
		if key, err = minisign.DecryptKey(password, bytes.TrimSpace(secret)); err != nil {
			return nil, beacon.Errorf(beacon.Invalid, "the secret key does not open with this password: it is another's, or the file is damaged")
		}
	} else if err = key.UnmarshalText(bytes.TrimSpace(secret)); err != nil {
		return nil, beacon.Errorf(beacon.Invalid, "this is not a secret key of minisign; the public one, beside it, only checks: %w", err)
	}
	return minisign.SignWithComments(key, binary, comment, "signature from "+fmt.Sprintf("%X", key.ID())), nil
}
