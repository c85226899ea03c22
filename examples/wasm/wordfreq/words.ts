// Words of a text that comes in pieces: letters of any script, with digits, marks,
// and apostrophes and hyphens inside.

// The longest word in UTF-16 units; of longer ones the rest is left out.
const MOST = 100;

// Ranges of what is no letter, digit or mark, beyond ASCII: spaces, punctuation,
// symbols, private use. In between may be what Unicode has not assigned.
const NONE: StaticArray<u32> = [
  0x80, 0xa9, 0xab, 0xb4, 0xb6, 0xb9, 0xbb, 0xbf, 0xd7, 0xd7, 0xf7, 0xf7, 0x2c2, 0x2c5, 0x2d2, 0x2df, 0x37e, 0x37e, 0x387, 0x387, 0x3f6, 0x3f6,
  0x482, 0x482, 0x55a, 0x55f, 0x589, 0x58f, 0x5be, 0x5be, 0x5c0, 0x5c0, 0x5c3, 0x5c3, 0x5c6, 0x5c6, 0x5f3, 0x5f4, 0x600, 0x60f, 0x61b, 0x61f,
  0x66a, 0x66d, 0x6d4, 0x6d4, 0x6dd, 0x6de, 0x6e9, 0x6e9, 0x700, 0x70f, 0x964, 0x965, 0x970, 0x970, 0xe3f, 0xe3f, 0xe4f, 0xe4f, 0xe5a, 0xe5b,
  0x10fb, 0x10fb, 0x1680, 0x1680, 0x17d4, 0x17d6, 0x17d8, 0x17db, 0x2000, 0x206f, 0x207a, 0x207e, 0x208a, 0x208e, 0x20a0, 0x20cf, 0x2100, 0x2101,
  0x2103, 0x2106, 0x2108, 0x2109, 0x2114, 0x2114, 0x2116, 0x2118, 0x211e, 0x2123, 0x2190, 0x245f, 0x249c, 0x24e9, 0x2500, 0x2bff, 0x2e00, 0x2e2e,
  0x2e30, 0x2fff, 0x3000, 0x3004, 0x3008, 0x3020, 0x3030, 0x3030, 0x303d, 0x303f, 0x30a0, 0x30a0, 0x30fb, 0x30fb, 0xe000, 0xf8ff, 0xfd3e, 0xfd3f,
  0xfe10, 0xfe1f, 0xfe30, 0xfe6f, 0xfeff, 0xff0f, 0xff1a, 0xff20, 0xff3b, 0xff40, 0xff5b, 0xff65, 0xffe0, 0xffff, 0x1f000, 0x1fbef, 0xe0000, 0x10ffff,
];

function isPart(c: u32): bool {
  if (c < 0x80) return (c >= 0x30 && c <= 0x39) || (c >= 0x41 && c <= 0x5a) || (c >= 0x61 && c <= 0x7a);
  let low = 0;
  let high = NONE.length / 2;
  while (low < high) {
    const middle = (low + high) >> 1;
    if (c < NONE[2 * middle]) high = middle;
    else if (c > NONE[2 * middle + 1]) low = middle + 1;
    else return false;
  }
  return true;
}

// Scripts that are written without spaces: each character counts as a word.
function isAlone(c: u32): bool {
  return (c >= 0x3041 && c <= 0x30ff) || (c >= 0x3400 && c <= 0x9fff) || (c >= 0xf900 && c <= 0xfaff) || (c >= 0x20000 && c <= 0x3ffff);
}

// What may stand inside of a word: ' - ’ and the soft hyphen, which is left out.
function isJoint(c: u32): bool {
  return c == 0x27 || c == 0x2d || c == 0x2019 || c == 0x2010 || c == 0xad;
}

// Splits text into words and hands on each one, as so many UTF-16 units at an address.
export class Splitter {
  private word: StaticArray<u16> = new StaticArray<u16>(MOST + 4);
  private length: i32 = 0;
  private plain: bool = true; // nothing but small letters of ASCII and digits in it
  private lower: string = ""; // here it stays as long as its address is in use
  private joint: u32 = 0; // one that is part of the word if it goes on
  private need: i32 = 0; // bytes that are to come of a character
  private point: u32 = 0;
  private least: u32 = 0; // the smallest character of that many bytes

  constructor(
    private fold: bool,
    private found: (word: usize, length: i32) => void,
  ) {}

  // Takes on a piece of the text, which is UTF-8. What is not separates words.
  feed(piece: Uint8Array, size: i32): void {
    for (let i = 0; i < size; i++) {
      const b: u32 = unchecked(piece[i]);
      if (this.need > 0) {
        if ((b & 0xc0) == 0x80) {
          this.point = (this.point << 6) | (b & 0x3f);
          if (--this.need == 0) {
            const good = this.point >= this.least && this.point <= 0x10ffff && (this.point < 0xd800 || this.point > 0xdfff);
            this.take(good ? this.point : 0xfffd);
          }
          continue;
        }
        this.need = 0;
        this.take(0xfffd);
      }
      if (b < 0x80) this.take(b);
      else if (b >= 0xc2 && b < 0xe0) this.begin(1, b & 0x1f, 0x80);
      else if (b >= 0xe0 && b < 0xf0) this.begin(2, b & 0x0f, 0x800);
      else if (b >= 0xf0 && b < 0xf5) this.begin(3, b & 0x07, 0x10000);
      else this.take(0xfffd);
    }
  }

  // Takes on all of a text.
  feedText(text: string): void {
    const bytes = Uint8Array.wrap(String.UTF8.encode(text));
    this.feed(bytes, bytes.length);
    this.end();
  }

  // The text has ended.
  end(): void {
    this.need = 0;
    this.finish();
  }

  private begin(need: i32, point: u32, least: u32): void {
    this.need = need;
    this.point = point;
    this.least = least;
  }

  private take(c: u32): void {
    if (c >= 0x61 && c <= 0x7a) {
      // by far the most
    } else if (!isPart(c)) {
      if (isJoint(c) && this.length > 0 && this.joint == 0) this.joint = c;
      else this.finish();
      return;
    } else if (isAlone(c)) {
      this.finish();
      this.add(c);
      this.finish();
      return;
    }
    if (this.joint != 0) {
      if (this.joint != 0xad) this.add(this.joint == 0x2019 ? 0x27 : this.joint == 0x2010 ? 0x2d : this.joint);
      this.joint = 0;
    }
    this.add(c);
  }

  private add(c: u32): void {
    if (this.length >= MOST) return;
    if (c >= 0x41 && c <= 0x5a && this.fold) c |= 0x20;
    if (c >= 0x80) this.plain = false;
    if (c >= 0x10000) {
      unchecked((this.word[this.length++] = <u16>(0xd800 + ((c - 0x10000) >> 10))));
      c = 0xdc00 + ((c - 0x10000) & 0x3ff);
    }
    unchecked((this.word[this.length++] = <u16>c));
  }

  private finish(): void {
    this.joint = 0;
    if (this.length == 0) return;
    const from = changetype<usize>(this.word);
    if (this.fold && !this.plain) {
      this.lower = String.UTF16.decodeUnsafe(from, <usize>this.length << 1).toLowerCase();
      this.found(changetype<usize>(this.lower), this.lower.length);
    } else {
      this.found(from, this.length);
    }
    this.length = 0;
    this.plain = true;
  }
}
