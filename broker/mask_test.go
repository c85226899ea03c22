package broker

import (
	"bytes"
	"io"
	"strings"
	"testing"
	"testing/iotest"

	"github.com/stretchr/testify/require"

	"github.com/ultravisor/beacon/policy"
)

func TestMask(t *testing.T) {
	m := masks{"hunter2-hunter2", "with space&more"}
	require.Equal(t, "a *************** b short", m.mask("a hunter2-hunter2 b short"))
	require.Equal(t, "key="+strings.Repeat("*", len("with+space%26more"))+"&x", m.mask("key=with+space%26more&x"))
	require.Equal(t, "/"+strings.Repeat("*", len("with%20space&more"))+"/", m.mask("/with%20space&more/"))
	require.Equal(t, "nothing", masks(nil).mask("nothing"))
}

// chunks are what reads bring, one by one.
type chunks []string

func (c *chunks) Read(p []byte) (int, error) {
	if len(*c) == 0 {
		return 0, io.EOF
	}
	n := copy(p, (*c)[0])
	*c = (*c)[1:]
	return n, nil
}

// What is no secret comes through at once, in an answer that never ends.
func TestMaskedStreamIsNotHeldBack(t *testing.T) {
	r := masks{"data: secret"}.reader(&chunks{"data: one\n\n", "x dat", "abase\n", "data: secre", "t!", "data: s"})
	for _, want := range []string{"data: one\n\n", "x ", "database\n", "************!", "data: s"} {
		b := make([]byte, 100)
		n, err := r.Read(b)
		require.NoError(t, err)
		require.Equal(t, want, string(b[:n]))
	}
	_, err := r.Read(make([]byte, 1))
	require.ErrorIs(t, err, io.EOF)
}

// However a stream is cut, the secrets are starred out and nothing else is
// changed.
func FuzzMasked(f *testing.F) {
	f.Add([]byte("xx hunter2-hunter2 hunter2-hunter2hunter2-hunter hunter2-"), []byte("hunter2-hunter2"), byte(1))
	f.Add([]byte("aaaaaaaaaaaaaaaaaaaaaaaaaaab"), []byte("aaaaaaaaab"), byte(3))
	f.Add([]byte(strings.Repeat("abababab", 50)), []byte("abababab"), byte(7))
	f.Fuzz(func(t *testing.T, content, secret []byte, size byte) {
		if len(secret) < policy.MinSecret {
			return
		}
		for _, from := range []io.Reader{bytes.NewReader(content), iotest.OneByteReader(bytes.NewReader(content)), iotest.DataErrReader(bytes.NewReader(content))} {
			r := masks{string(secret)}.reader(from)
			var got []byte
			buf := make([]byte, int(size)%17+1)
			for {
				n, err := r.Read(buf)
				got = append(got, buf[:n]...)
				if err != nil {
					require.ErrorIs(t, err, io.EOF)
					break
				}
			}
			require.Len(t, got, len(content))
			if !bytes.Contains(bytes.Repeat([]byte("*"), len(secret)), secret) && !bytes.Contains(secret, []byte("*")) {
				require.NotContains(t, string(got), string(secret))
			}
			for i := range got {
				require.True(t, got[i] == content[i] || got[i] == '*', "byte %d was changed", i)
			}
			if !bytes.Contains(content, secret) {
				require.Equal(t, content, append([]byte{}, got...))
			}
		}
	})
}
