package main

import (
	"encoding/binary"
	"image"
	"image/draw"
)

// orientation finds out how a camera was held: a number from 1 to 8 in the Exif
// data of a JPEG. 1 is upright, and what there is for all that has none.
func orientation(raw []byte) int {
	const upright = 1
	if len(raw) < 4 || raw[0] != 0xff || raw[1] != 0xd8 {
		return upright
	}
	for rest := raw[2:]; len(rest) >= 4 && rest[0] == 0xff; {
		marker, length := rest[1], int(binary.BigEndian.Uint16(rest[2:]))
		if marker == 0xda || length < 2 || length+2 > len(rest) { // the picture itself begins
			return upright
		}
		if content := rest[4 : length+2]; marker == 0xe1 && len(content) > 14 && string(content[:6]) == "Exif\x00\x00" {
			return tiffOrientation(content[6:])
		}
		rest = rest[length+2:]
	}
	return upright
}

// tiffOrientation looks through the first directory of Exif data.
func tiffOrientation(tiff []byte) int {
	const upright, tag, entry = 1, 0x0112, 12
	var order binary.ByteOrder = binary.LittleEndian
	switch string(tiff[:2]) {
	case "MM":
		order = binary.BigEndian
	case "II":
	default:
		return upright
	}
	at := uint64(order.Uint32(tiff[4:]))
	if at+2 > uint64(len(tiff)) {
		return upright
	}
	directory := tiff[at+2:]
	for range order.Uint16(tiff[at:]) {
		if len(directory) < entry {
			return upright
		}
		if order.Uint16(directory) == tag {
			if n := int(order.Uint16(directory[8:])); n >= 1 && n <= 8 {
				return n
			}
			return upright
		}
		directory = directory[entry:]
	}
	return upright
}

// upright turns and mirrors a picture into the orientation in which it was seen.
func upright(picture image.Image, orientation int) image.Image {
	if orientation <= 1 {
		return picture
	}
	from := picture.Bounds()
	source := image.NewNRGBA(image.Rect(0, 0, from.Dx(), from.Dy()))
	draw.Draw(source, source.Rect, picture, from.Min, draw.Src)
	w, h := from.Dx(), from.Dy()
	size := image.Pt(w, h)
	if orientation >= 5 {
		size = image.Pt(h, w)
	}
	turned := image.NewNRGBA(image.Rectangle{Max: size})
	for y := range h {
		for x := range w {
			to := [9]image.Point{
				2: {w - 1 - x, y}, 3: {w - 1 - x, h - 1 - y}, 4: {x, h - 1 - y}, 5: {y, x},
				6: {h - 1 - y, x}, 7: {h - 1 - y, w - 1 - x}, 8: {y, w - 1 - x},
			}[orientation]
			copy(turned.Pix[turned.PixOffset(to.X, to.Y):][:4], source.Pix[source.PixOffset(x, y):][:4])
		}
	}
	return turned
}
