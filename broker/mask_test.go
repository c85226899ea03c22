package broker

import (
	"bytes"
	"encoding/base64"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"html"
	"io"
	"net/url"
	"strconv"
	"strings"
	"testing"
	"testing/iotest"

	"github.com/stretchr/testify/require"

	"github.com/ultravisor/beacon/policy"
)

func TestMask(t *testing.T) {
	m := masksOf([]string{"hunter2-hunter2", "with space&more"})
	require.Equal(t, "a *************** b short", m.mask("a hunter2-hunter2 b short"))
	require.Equal(t, "key="+strings.Repeat("*", len("with+space%26more"))+"&x", m.mask("key=with+space%26more&x"))
	require.Equal(t, "/"+strings.Repeat("*", len("with%20space&more"))+"/", m.mask("/with%20space&more/"))
	require.Equal(t, "nothing", masks{}.mask("nothing"))
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
	r := masksOf([]string{"data: secret"}).reader(&chunks{"data: one\n\n", "x dat", "abase\n", "data: secre", "t!", "data: s"})
	for _, want := range []string{"data: one\n\n", "x ", "database\n", "************!", "data: s"} {
		b := make([]byte, 100)
		n, err := r.Read(b)
		require.NoError(t, err)
		require.Equal(t, want, string(b[:n]))
	}
	_, err := r.Read(make([]byte, 1))
	require.ErrorIs(t, err, io.EOF)
}

// A text that is cut off in the middle of a secret shows nothing of it.
func TestMaskOfWhatIsCut(t *testing.T) {
	m := masksOf([]string{"hunter2-hunter2"})
	for text, want := range map[string]string{
		"wrong key hunter2-hun… (cut)": "wrong key ***********… (cut)", "hunt…": "****…", "one … hunter2…": "one … *******…",
		"hun…": "hun…", "hunter2-hunter2…": "***************…", "Hunter2-Hunt…": "************…",
	} {
		require.Equal(t, want, m.mask(text))
	}
}

// A secret is found in all the forms that programs write it in, in a head and in a
// body, and so is what is the secret in it.
func TestForms(t *testing.T) {
	const secret = `pa"ss<w>or&d\with/all+ of'it=é`
	basic := base64.StdEncoding.EncodeToString([]byte("user:" + secret))
	quoted, err := json.Marshal(secret)
	require.NoError(t, err)
	written := map[string]string{
		"plain": secret, "query": url.Values{"k": {secret}}.Encode(), "path": (&url.URL{Path: "/" + secret}).String(),
		"segment": url.PathEscape(secret), "JSON": string(quoted), "Go": strconv.Quote(secret), "HTML": html.EscapeString(secret),
		"JavaScript": `"pa\"ss<w>or&d\\with/all+ of'it=é"`, "lower": strings.ToLower(url.QueryEscape(secret)),
		"hex": hex.EncodeToString([]byte(secret)), "HEX": fmt.Sprintf("%X", secret), "base64": base64.StdEncoding.EncodeToString([]byte(secret)),
		"header":  base64.URLEncoding.EncodeToString([]byte("Authorization: Bearer " + secret + "\r\n")),
		"shifted": base64.RawStdEncoding.EncodeToString([]byte("x" + secret)), "twice": base64.StdEncoding.EncodeToString([]byte("xy" + secret)),
	}
	written["lower"] = strings.NewReplacer("%2B", "%2b", "%2F", "%2f", "%3C", "%3c", "%3D", "%3d", "%3E", "%3e", "%5C", "%5c", "%C3%A9", "%c3%a9").Replace(url.QueryEscape(secret))
	for _, whole := range []string{secret, "Bearer " + secret, "Basic " + basic, basic} {
		m := masksOf([]string{whole})
		for name, text := range written {
			text = "<" + text + ">"
			body, err := io.ReadAll(m.reader(iotest.OneByteReader(strings.NewReader(text))))
			require.NoError(t, err)
			for _, got := range []string{m.mask(text), string(body)} {
				require.Len(t, got, len(text))
				// Of base64, letters at the ends have a share in what is around.
				require.GreaterOrEqual(t, strings.Count(got, "*"), len(secret), "%s of %s: %s", name, whole, got)
				for i := range len(secret) - 4 {
					require.NotContains(t, strings.ToLower(got), strings.ToLower(secret[i:i+4]), "%s of %s", name, whole)
				}
			}
		}
	}
	for _, name := range []string{"Sk-0123-Abcdef", "SK-0123-ABCDEF", "sk-0123-abcdef"} {
		require.Equal(t, "X-**************", masksOf([]string{"sk-0123-aBCdef"}).mask("X-"+name))
	}
	require.Empty(t, parts("Bearer"), "what would be left is too short")
	require.Equal(t, []string{"Bearer short"}, parts("Bearer short"))
}

// One secret may be the beginning of another, of which nothing is left to be seen.
func TestSecretInAnother(t *testing.T) {
	m := masksOf([]string{"0123456789", "0123456789abcdef", "9abcdefghi"})
	for text, want := range map[string]string{
		"x0123456789abcdefx": "x****************x", "0123456789abcde": "**********abcde", "0123456789abcdefghix": "*******************x",
	} {
		body, err := io.ReadAll(m.reader(iotest.OneByteReader(strings.NewReader(text))))
		require.NoError(t, err)
		require.Equal(t, want, string(body))
		require.Equal(t, want, m.mask(text))
	}
}

// However a stream is cut, the secrets are starred out and nothing else is
// changed.
func FuzzMasked(f *testing.F) {
	f.Add([]byte("xx hunter2-hunter2 hunter2-hunter2hunter2-hunter hunter2-"), []byte("hunter2-hunter2"), byte(1))
	f.Add([]byte("aaaaaaaaaaaaaaaaaaaaaaaaaaab"), []byte("aaaaaaaaab"), byte(3))
	f.Add([]byte(strings.Repeat("abababab", 50)), []byte("abababab"), byte(7))
	f.Add([]byte("0123456789abcdef 0123456789ab 0123456789"), []byte("0123456789 0123456789abcdef"), byte(2))
	f.Fuzz(func(t *testing.T, content, secret []byte, size byte) {
		if len(secret) < policy.MinSecret {
			return
		}
		m := masksOf([]string{string(secret)})
		want := bytes.Clone(content)
		star(want, find(content, m.forms))
		if !bytes.Contains(bytes.Repeat([]byte("*"), len(secret)), secret) && !bytes.Contains(secret, []byte("*")) {
			require.NotContains(t, string(want), string(secret))
			require.NotContains(t, m.mask(string(content)), string(secret))
		}
		for _, from := range []io.Reader{bytes.NewReader(content), iotest.OneByteReader(bytes.NewReader(content)), iotest.DataErrReader(bytes.NewReader(content))} {
			r := m.reader(from)
			got := []byte{}
			buf := make([]byte, int(size)%17+1)
			for {
				n, err := r.Read(buf)
				got = append(got, buf[:n]...)
				if err != nil {
					require.ErrorIs(t, err, io.EOF)
					break
				}
			}
			require.Equal(t, string(want), string(got))
		}
	})
}
