// Image is a provider that resizes and converts pictures: PNG, JPEG and GIF in,
// PNG and JPEG out.
package main

import (
	"bytes"
	"errors"
	"image"
	"image/color"
	_ "image/gif" // a format to read
	"image/jpeg"
	"image/png"
	"io"
	"strconv"
	"strings"

	"golang.org/x/image/draw"

	"github.com/ultravisor/beacon/guest-sdk/go/guest"
)

// The host calls what Serve is given; there is no main to run.
func main() {}

func init() { guest.Serve(provider) }

var (
	format = guest.Setting{Name: "Format", Options: []string{"png", "jpeg"}, Description: "the output's format; by the output's name, or else like the source"}
	qual   = guest.Setting{Name: "Quality", Type: guest.Integer, Default: "85", Description: "of JPEG, 1 to 100"}
	ground = guest.Setting{Name: "Background", Default: "#ffffff", Description: "what shows through in JPEG, which knows no transparency"}
	most   = guest.Setting{Name: "MaxPixels", Type: guest.Integer, Default: "16000000", Description: "pictures with more pixels are refused, before they take memory"}
)

var provider = guest.Provider{
	Name: "image", Version: "1.0.0", Capability: "ImageProcessing", Description: "resizes and converts pictures",
	Actions: []guest.Action{
		{
			Name: "Resize", Description: "makes a picture smaller or larger",
			Settings: []guest.Setting{
				{Name: "Width", Type: guest.Integer, Description: "in pixels; by the height if it is left out"},
				{Name: "Height", Type: guest.Integer, Description: "in pixels; by the width if it is left out"},
				{Name: "Fit", Options: []string{"contain", "cover", "fill"}, Default: "contain", Description: "contain: inside of width and height; cover: exactly that, cut at the sides; fill: exactly that, stretched"},
				format, qual, ground, most,
			},
			Example: &guest.Example{Settings: map[string]string{"Width": "160"}, Source: "data/landscape.png", Output: "small.png"},
			Run:     resize,
		},
		{
			Name: "Thumbnail", Description: "makes a small square of a picture",
			Settings: []guest.Setting{{Name: "Size", Type: guest.Integer, Default: "128", Description: "in pixels"}, format, qual, ground, most},
			Run:      thumbnail,
		},
		{
			Name: "Convert", Description: "changes the format",
			Settings: []guest.Setting{format, qual, ground, most},
			Run:      convert,
		},
		{
			Name: "Info", Description: "says what a picture is, by its first bytes",
			Run: info,
		},
	},
}

func resize(item *guest.Item) error {
	width, height, fit := int(item.Int("Width")), int(item.Int("Height")), item.Text("Fit")
	switch {
	case width < 0 || height < 0 || width > 65535 || height > 65535:
		return guest.Exit(1, "Width and Height are from 1 to 65535")
	case width == 0 && height == 0:
		return guest.Exit(1, "Width or Height is missing")
	case (width == 0 || height == 0) && fit != "contain":
		return guest.Exit(1, "Fit "+fit+" takes Width and Height")
	}
	return change(item, func(size image.Point) (whole, part image.Rectangle, err error) {
		return plan(size, width, height, fit)
	})
}

func thumbnail(item *guest.Item) error {
	size := int(item.Int("Size"))
	if size < 1 || size > 4096 {
		return guest.Exit(1, "Size is from 1 to 4096")
	}
	return change(item, func(source image.Point) (whole, part image.Rectangle, err error) {
		return plan(source, size, size, "cover")
	})
}

func convert(item *guest.Item) error {
	return change(item, func(size image.Point) (whole, part image.Rectangle, err error) {
		r := image.Rectangle{Max: size}
		return r, r, nil
	})
}

// plan finds the output's size, and which part of the source goes there.
func plan(source image.Point, width, height int, fit string) (whole, part image.Rectangle, err error) {
	part = image.Rectangle{Max: source}
	across, down := float64(width)/float64(source.X), float64(height)/float64(source.Y)
	switch {
	case width == 0:
		across = down
	case height == 0:
		down = across
	case fit == "contain":
		across, down = min(across, down), min(across, down)
	case fit == "cover":
		scale := max(across, down)
		visible := image.Pt(round(float64(width)/scale), round(float64(height)/scale))
		corner := source.Sub(visible).Div(2)
		return image.Rect(0, 0, width, height), image.Rectangle{Max: visible}.Add(corner), nil
	}
	whole = image.Rect(0, 0, round(float64(source.X)*across), round(float64(source.Y)*down))
	if whole.Dx() > 65535 || whole.Dy() > 65535 {
		return whole, part, guest.Exit(1, "the picture would have a side of more than 65535 pixels")
	}
	return whole, part, nil
}

func round(x float64) int { return max(1, int(x+0.5)) }

// change reads the source, brings a part of it to another size, and writes the
// output.
func change(item *guest.Item, plan func(source image.Point) (whole, part image.Rectangle, err error)) error {
	raw, err := item.ReadSource()
	if err != nil {
		return err
	}
	picture, kind, err := decode(raw, int(item.Int("MaxPixels")))
	if err != nil {
		return err
	}
	item.Progress(40, "read a "+kind+" of "+dimensions(picture.Bounds()))
	turned := upright(picture, orientation(raw))
	whole, part, err := plan(turned.Bounds().Size())
	if err != nil {
		return err
	}
	if pixels := int64(whole.Dx()) * int64(whole.Dy()); pixels > item.Int("MaxPixels") {
		return guest.Exit(1, "the picture would have "+strconv.FormatInt(pixels, 10)+" pixels, MaxPixels is "+item.Text("MaxPixels"))
	}
	out := turned
	if whole.Size() != turned.Bounds().Size() || part.Size() != whole.Size() {
		made := image.NewNRGBA(whole)
		draw.CatmullRom.Scale(made, whole, turned, part.Add(turned.Bounds().Min), draw.Src, nil)
		out = made
	}
	item.Progress(80, "made "+dimensions(whole))

	into := item.Text("Format")
	if into == "" {
		into = formatOf(item.OutputPath, kind)
	}
	var encoded bytes.Buffer
	if into == "jpeg" {
		quality := int(item.Int("Quality"))
		if quality < 1 || quality > 100 {
			return guest.Exit(1, "Quality is from 1 to 100")
		}
		behind, err := parseColor(item.Text("Background"))
		if err != nil {
			return err
		}
		opaque := image.NewRGBA(whole)
		draw.Draw(opaque, whole, image.NewUniform(behind), image.Point{}, draw.Src)
		draw.Draw(opaque, whole, out, out.Bounds().Min, draw.Over)
		err = jpeg.Encode(&encoded, opaque, &jpeg.Options{Quality: quality})
		if err != nil {
			return err
		}
	} else if err := png.Encode(&encoded, out); err != nil {
		return err
	}
	if err := item.WriteOutput(encoded.Bytes()); err != nil {
		return err
	}
	item.Set("Width", whole.Dx())
	item.Set("Height", whole.Dy())
	item.Set("Format", into)
	item.Result(into + " of " + dimensions(whole))
	return nil
}

// decode reads a picture that is not too large.
func decode(raw []byte, most int) (image.Image, string, error) {
	head, _, err := image.DecodeConfig(bytes.NewReader(raw))
	if err != nil {
		return nil, "", unreadable(err)
	}
	if head.Width < 1 || head.Height < 1 || head.Width > most/head.Height {
		return nil, "", guest.Exit(1, "the picture has "+dimensions(image.Rect(0, 0, head.Width, head.Height))+" pixels, MaxPixels is "+strconv.Itoa(most))
	}
	picture, kind, err := image.Decode(bytes.NewReader(raw))
	if err != nil {
		return nil, kind, unreadable(err)
	}
	return picture, kind, nil
}

// unreadable is a result and no failure: the same file will not be read the next
// time.
func unreadable(err error) error {
	if errors.Is(err, image.ErrFormat) {
		return guest.Exit(1, "the source is no PNG, JPEG or GIF")
	}
	if errors.Is(err, io.ErrUnexpectedEOF) || errors.Is(err, io.EOF) {
		return guest.Exit(1, "the picture is cut off")
	}
	return guest.Exit(1, "the picture is damaged: "+err.Error())
}

func info(item *guest.Item) error {
	raw, err := item.ReadSource()
	if err != nil {
		return err
	}
	head, kind, err := image.DecodeConfig(bytes.NewReader(raw))
	if err != nil {
		return unreadable(err)
	}
	size := image.Pt(head.Width, head.Height)
	if orientation(raw) >= 5 {
		size = image.Pt(size.Y, size.X)
	}
	item.Set("Width", size.X)
	item.Set("Height", size.Y)
	item.Set("Format", kind)
	item.Result(kind + " of " + dimensions(image.Rectangle{Max: size}))
	return nil
}

func dimensions(r image.Rectangle) string { return strconv.Itoa(r.Dx()) + "x" + strconv.Itoa(r.Dy()) }

// formatOf goes by the output's name.
func formatOf(name, source string) string {
	lower := strings.ToLower(name)
	switch {
	case strings.HasSuffix(lower, ".jpg") || strings.HasSuffix(lower, ".jpeg"):
		return "jpeg"
	case strings.HasSuffix(lower, ".png") || source != "jpeg":
		return "png"
	}
	return "jpeg"
}

// parseColor reads #rgb and #rrggbb.
func parseColor(text string) (color.Color, error) {
	digits, ok := strings.CutPrefix(text, "#")
	if len(digits) == 3 {
		digits = string([]byte{digits[0], digits[0], digits[1], digits[1], digits[2], digits[2]})
	}
	n, err := strconv.ParseUint(digits, 16, 32)
	if !ok || err != nil || len(digits) != 6 {
		return nil, guest.Exit(1, "Background is "+strconv.Quote(text)+": want a colour such as #ffffff")
	}
	return color.RGBA{R: uint8(n >> 16), G: uint8(n >> 8), B: uint8(n), A: 255}, nil
}
