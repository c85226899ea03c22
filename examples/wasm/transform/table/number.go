package table

import (
	"math"
	"strconv"
)

var powers = [...]float64{
	1, 1e1, 1e2, 1e3, 1e4, 1e5, 1e6, 1e7, 1e8, 1e9, 1e10, 1e11,
	1e12, 1e13, 1e14, 1e15, 1e16, 1e17, 1e18, 1e19, 1e20, 1e21, 1e22,
}

// parseNumber reads a decimal number, with spaces around it or not. Numbers of
// up to fifteen digits are exact by one multiplication or division, as both
// operands are; strconv does the others.
func parseNumber(b []byte) (float64, bool) {
	for len(b) > 0 && b[0] == ' ' {
		b = b[1:]
	}
	for len(b) > 0 && b[len(b)-1] == ' ' {
		b = b[:len(b)-1]
	}
	i := 0
	negative := false
	if i < len(b) && (b[i] == '-' || b[i] == '+') {
		negative = b[i] == '-'
		i++
	}
	var mantissa uint64
	digits, point := 0, -1
	for ; i < len(b); i++ {
		c := b[i]
		if d := c - '0'; d <= 9 {
			mantissa = mantissa*10 + uint64(d)
			digits++
		} else if c == '.' && point < 0 {
			point = digits
		} else {
			break
		}
	}
	if digits == 0 {
		return 0, false
	}
	if i < len(b) && b[i]|0x20 != 'e' {
		return 0, false
	}
	if i < len(b) || digits > 15 {
		return parseSlow(b)
	}
	f := float64(mantissa)
	if point >= 0 {
		f /= powers[digits-point]
	}
	if negative {
		f = -f
	}
	return f, true
}

// numberAt reads field i, which is not empty. Numbers of at most eight bytes,
// nearly all, are read without a loop: the digits lie in one word, and three
// multiplications join eight of them.
func (r *row) numberAt(i int) (float64, bool) {
	s := r.spans[i]
	n := int(s.end - s.start)
	if n > 8 {
		return parseNumber(r.buf[s.start:s.end])
	}
	v := load64(r.buf, int(s.start))
	negative := byte(v) == '-'
	if negative {
		v >>= 8
		n--
	}
	digits := v ^ ones*'0'
	other := ((digits&^highs + ones*(0x80-10)) | digits) & highs & masks[n&15] // no digit
	decimals := 0
	if other != 0 {
		point := lowest(other)
		if v>>(8*point)&0xff != '.' || other&(other-1) != 0 {
			return parseNumber(r.buf[s.start:s.end])
		}
		decimals = n - 1 - point
		digits = digits&masks[point] | digits>>8&^masks[point]
		n--
	}
	if n == 0 {
		return 0, false
	}
	digits = digits & masks[n&15] << (64 - 8*n) // the highest byte is the last digit
	digits = digits & 0x0f0f0f0f0f0f0f0f * 2561 >> 8
	digits = digits & 0x00ff00ff00ff00ff * 6553601 >> 16
	f := float64(digits & 0x0000ffff0000ffff * 42949672960001 >> 32)
	if decimals > 0 {
		f /= powers[decimals]
	}
	if negative {
		f = -f
	}
	return f, true
}

// parseSlow leaves the rest to strconv, but not what only Go calls a number.
func parseSlow(b []byte) (float64, bool) {
	for _, c := range b {
		switch {
		case c >= '0' && c <= '9', c == '.', c == 'e', c == 'E', c == '+', c == '-':
		default:
			return 0, false
		}
	}
	f, err := strconv.ParseFloat(string(b), 64)
	if err != nil {
		return 0, false
	}
	return f, true
}

// appendNumber writes the shortest decimal that means f. Most results have few
// decimals: if f is n/10^k with n of at most fifteen digits, then n/10^k is it,
// as no two such decimals are the same float.
func appendNumber(b []byte, f float64) []byte {
	size := math.Abs(f)
	if size < 1e11 && (size >= 1e-3 || size == 0) {
		for k := range 5 {
			n := math.Round(f * powers[k])
			if n/powers[k] == f {
				return appendDecimal(b, int64(n), k)
			}
		}
	}
	format := byte('f')
	if size < 1e-6 || size >= 1e21 {
		format = 'e'
	}
	return strconv.AppendFloat(b, f, format, -1, 64)
}

// appendDecimal writes n/10^k, which has no zero at its end unless k is 0.
func appendDecimal(b []byte, n int64, k int) []byte {
	if n < 0 {
		b = append(b, '-')
		n = -n
	}
	var digits [24]byte
	i := len(digits)
	if k > 0 {
		for ; k > 0; k-- {
			i--
			digits[i] = byte('0' + n%10)
			n /= 10
		}
		i--
		digits[i] = '.'
	}
	for {
		i--
		digits[i] = byte('0' + n%10)
		n /= 10
		if n == 0 {
			return append(b, digits[i:]...)
		}
	}
}
