package main

import (
	"bytes"
	"image"
	"image/color"
	"os"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/ultravisor/beacon/guest-sdk/go/guesttest"
)

// picture has an action make a picture of a file in testdata.
func picture(t *testing.T, action, source, output string, settings map[string]any) (image.Image, string) {
	t.Helper()
	raw, err := os.ReadFile("testdata/" + source)
	require.NoError(t, err)
	r := guesttest.Run(t, provider, guesttest.Item{Action: action, Settings: settings, Source: string(raw), OutputName: output})
	require.NoError(t, r.Err)
	require.Zero(t, r.ExitCode, r.Outputs)
	made, kind, err := image.Decode(bytes.NewReader([]byte(r.Output)))
	require.NoError(t, err)
	return made, kind
}

func near(t *testing.T, want color.RGBA, got color.Color) {
	t.Helper()
	r, g, b, _ := got.RGBA()
	require.InDelta(t, want.R, r>>8, 12)
	require.InDelta(t, want.G, g>>8, 12)
	require.InDelta(t, want.B, b>>8, 12)
}

var red, blue = color.RGBA{220, 20, 20, 255}, color.RGBA{20, 20, 220, 255}

// The camera was turned by 90 degrees: what lay left in the file is on top.
func TestTurned(t *testing.T) {
	made, kind := picture(t, "Convert", "turned.jpg", "out.png", nil)
	require.Equal(t, "png", kind)
	require.Equal(t, image.Pt(20, 40), made.Bounds().Size())
	near(t, red, made.At(10, 4))
	near(t, blue, made.At(10, 36))
}

func TestCover(t *testing.T) {
	made, kind := picture(t, "Thumbnail", "turned.jpg", "out.jpg", map[string]any{"Size": 10})
	require.Equal(t, "jpeg", kind)
	require.Equal(t, image.Pt(10, 10), made.Bounds().Size())
	near(t, red, made.At(5, 1))
	near(t, blue, made.At(5, 8))
}

func TestBackground(t *testing.T) {
	made, _ := picture(t, "Convert", "clear.gif", "out.jpg", map[string]any{"Background": "#0f0"})
	near(t, color.RGBA{0, 255, 0, 255}, made.At(1, 1))
}

func TestOrientations(t *testing.T) {
	corner := image.NewNRGBA(image.Rect(5, 5, 8, 7)) // 3x2, the top left red
	corner.Set(5, 5, red)
	for o, at := range map[int]image.Point{1: {5, 5}, 2: {2, 0}, 3: {2, 1}, 4: {0, 1}, 5: {0, 0}, 6: {1, 0}, 7: {1, 2}, 8: {0, 2}} {
		turned := upright(corner, o)
		near(t, red, turned.At(at.X, at.Y))
		if o >= 5 {
			require.Equal(t, image.Pt(2, 3), turned.Bounds().Size())
		}
	}
}

func FuzzOrientation(f *testing.F) {
	raw, err := os.ReadFile("testdata/turned.jpg")
	require.NoError(f, err)
	f.Add(raw)
	f.Fuzz(func(t *testing.T, raw []byte) {
		if n := orientation(raw); n < 1 || n > 8 {
			t.Error(n)
		}
	})
}
