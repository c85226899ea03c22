// Text: UTF-8 for the host, and as much of JSON as a provider takes.

// A buffer of bytes that grows. Text is UTF-8 in it.
export class Bytes {
  private data: ArrayBuffer = new ArrayBuffer(256);
  length: i32 = 0;

  get pointer(): usize {
    return changetype<usize>(this.data);
  }

  private room(more: i32): usize {
    const need = this.length + more;
    if (need > this.data.byteLength) {
      const grown = new ArrayBuffer(max(this.data.byteLength * 2, need));
      memory.copy(changetype<usize>(grown), changetype<usize>(this.data), this.length);
      this.data = grown;
    }
    return changetype<usize>(this.data) + this.length;
  }

  private byte(c: u32): void {
    store<u8>(this.room(1), c);
    this.length++;
  }

  // Copies bytes.
  add(from: usize, size: i32): void {
    memory.copy(this.room(size), from, size);
    this.length += size;
  }

  private point(c: u32): void {
    const p = this.room(4);
    if (c < 0x80) {
      store<u8>(p, c);
      this.length += 1;
    } else if (c < 0x800) {
      store<u8>(p, 0xc0 | (c >> 6));
      store<u8>(p, 0x80 | (c & 63), 1);
      this.length += 2;
    } else if (c < 0x10000) {
      store<u8>(p, 0xe0 | (c >> 12));
      store<u8>(p, 0x80 | ((c >> 6) & 63), 1);
      store<u8>(p, 0x80 | (c & 63), 2);
      this.length += 3;
    } else {
      store<u8>(p, 0xf0 | (c >> 18));
      store<u8>(p, 0x80 | ((c >> 12) & 63), 1);
      store<u8>(p, 0x80 | ((c >> 6) & 63), 2);
      store<u8>(p, 0x80 | (c & 63), 3);
      this.length += 4;
    }
  }

  // Appends text as it is, or with JSON's escapes. Half a surrogate becomes U+FFFD.
  text(s: string, escaped: bool = false): Bytes {
    for (let i = 0, n = s.length; i < n; i++) {
      let c: u32 = s.charCodeAt(i);
      if (c >= 0xd800 && c < 0xe000) {
        const low: u32 = i + 1 < n ? s.charCodeAt(i + 1) : 0;
        if (c < 0xdc00 && low >= 0xdc00 && low < 0xe000) {
          c = 0x10000 + ((c - 0xd800) << 10) + (low - 0xdc00);
          i++;
        } else {
          c = 0xfffd;
        }
      }
      if (escaped && (c < 0x20 || c == 0x22 || c == 0x5c)) {
        this.byte(0x5c);
        if (c >= 0x20) {
          this.byte(c);
        } else if (c == 10) {
          this.byte(0x6e);
        } else {
          this.text("u00");
          this.byte(0x30 + (c >> 4));
          this.byte((c & 15) < 10 ? 0x30 + (c & 15) : 0x57 + (c & 15));
        }
        continue;
      }
      this.point(c);
    }
    return this;
  }

  // Appends a JSON string.
  quoted(s: string): Bytes {
    this.byte(0x22);
    this.text(s, true);
    this.byte(0x22);
    return this;
  }

  // Appends the name of a member of an object that was begun with a brace.
  name(name: string): Bytes {
    if (this.length > 0 && load<u8>(this.pointer + this.length - 1) != 0x7b) this.byte(0x2c);
    this.quoted(name);
    this.byte(0x3a);
    return this;
  }

  // Appends a member that is text.
  member(name: string, value: string): Bytes {
    return this.name(name).quoted(value);
  }
}

export function utf8(s: string): Bytes {
  return new Bytes().text(s);
}

const DIGITS = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";

export function base64(data: Uint8Array, out: Bytes): void {
  out.text('"');
  for (let i = 0, n = data.length; i < n; i += 3) {
    const bits = ((<u32>data[i]) << 16) | (i + 1 < n ? (<u32>data[i + 1]) << 8 : 0) | (i + 2 < n ? <u32>data[i + 2] : 0);
    out.text(DIGITS.charAt(bits >> 18) + DIGITS.charAt((bits >> 12) & 63));
    out.text(i + 1 < n ? DIGITS.charAt((bits >> 6) & 63) : "=");
    out.text(i + 2 < n ? DIGITS.charAt(bits & 63) : "=");
  }
  out.text('"');
}

// The length of the UTF-8 sequence at p, 0 if there is none.
function sequence(p: usize, left: usize): usize {
  const c = <u32>load<u8>(p);
  const n: usize = c < 0x80 ? 1 : c >= 0xc2 && c < 0xe0 ? 2 : c >= 0xe0 && c < 0xf0 ? 3 : c >= 0xf0 && c < 0xf5 ? 4 : 0;
  if (n > left) return 0;
  for (let i: usize = 1; i < n; i++) {
    if ((load<u8>(p + i) & 0xc0) != 0x80) return 0;
  }
  if (n < 3) return n;
  const second = <u32>load<u8>(p, 1);
  if ((c == 0xe0 && second < 0xa0) || (c == 0xed && second >= 0xa0) || (c == 0xf0 && second < 0x90) || (c == 0xf4 && second >= 0x90)) return 0;
  return n;
}

// Makes text of bytes: each one that is not UTF-8 becomes U+FFFD.
export function decodeText(from: usize, size: usize): string {
  let valid = true;
  for (let i: usize = 0; i < size; ) {
    const n = sequence(from + i, size - i);
    if (n == 0) {
      valid = false;
      break;
    }
    i += n;
  }
  if (valid) return String.UTF8.decodeUnsafe(from, size);
  const out = new Bytes();
  for (let i: usize = 0; i < size; ) {
    const n = sequence(from + i, size - i);
    if (n == 0) {
      out.text("\ufffd");
      i++;
    } else {
      out.add(from + i, <i32>n);
      i += n;
    }
  }
  return String.UTF8.decodeUnsafe(out.pointer, out.length);
}

// Makes text of bytes: each one that is not UTF-8 becomes U+FFFD.
export function text(data: Uint8Array): string {
  return decodeText(data.dataStart, data.length);
}

function space(s: string, i: i32): i32 {
  while (i < s.length && (s.charCodeAt(i) == 0x20 || (s.charCodeAt(i) >= 9 && s.charCodeAt(i) <= 13))) i++;
  return i;
}

// The end of the value at i, which the host has written, so that it is JSON.
function valueEnd(s: string, i: i32): i32 {
  let depth = 0;
  let quoted = false;
  for (; i < s.length; i++) {
    const c = s.charCodeAt(i);
    if (quoted) {
      if (c == 0x5c) {
        i++;
      } else if (c == 0x22) {
        quoted = false;
        if (depth == 0) return i + 1;
      }
    } else if (c == 0x22) {
      quoted = true;
    } else if (c == 0x7b || c == 0x5b) {
      depth++;
    } else if (c == 0x7d || c == 0x5d) {
      if (depth == 0) return i;
      if (--depth == 0) return i + 1;
    } else if (depth == 0 && (c == 0x2c || c == 0x20 || c == 10)) {
      return i;
    }
  }
  return s.length;
}

// The content of a JSON string, the JSON of anything else.
function content(raw: string): string {
  if (raw.length < 2 || raw.charCodeAt(0) != 0x22) return raw;
  let out = "";
  let start = 1;
  const end = raw.length - 1;
  for (let i = 1; i < end; i++) {
    if (raw.charCodeAt(i) != 0x5c) continue;
    out += raw.substring(start, i);
    i++;
    const c = raw.charAt(i);
    if (c == "u") {
      out += String.fromCharCode(<i32>parseInt(raw.substring(i + 1, i + 5), 16));
      i += 4;
    } else {
      out += c == "n" ? "\n" : c == "t" ? "\t" : c == "r" ? "\r" : c == "b" ? "\b" : c == "f" ? "\f" : c;
    }
    start = i + 1;
  }
  return out + raw.substring(start, end);
}

// One member of a JSON object that the host sent, as text: the content of a JSON
// string, the JSON of anything else. Null when it is absent or null.
export function member(json: string, name: string): string | null {
  let i = space(json, 0);
  if (i >= json.length || json.charCodeAt(i) != 0x7b) return null;
  i = space(json, i + 1);
  while (i < json.length && json.charCodeAt(i) == 0x22) {
    let end = valueEnd(json, i);
    const key = content(json.substring(i, end));
    i = space(json, space(json, end) + 1); // the colon
    end = valueEnd(json, i);
    if (key == name) {
      const raw = json.substring(i, end);
      return raw == "null" ? null : content(raw);
    }
    i = space(json, end);
    if (i < json.length && json.charCodeAt(i) == 0x2c) i = space(json, i + 1);
  }
  return null;
}

// The elements of a JSON array that the host sent, each as JSON.
export function elements(json: string): string[] {
  const out: string[] = [];
  let i = space(json, 0);
  if (i >= json.length || json.charCodeAt(i) != 0x5b) return out;
  i = space(json, i + 1);
  while (i < json.length && json.charCodeAt(i) != 0x5d) {
    const end = valueEnd(json, i);
    out.push(json.substring(i, end));
    i = space(json, end);
    if (i < json.length && json.charCodeAt(i) == 0x2c) i = space(json, i + 1);
  }
  return out;
}

// Quotes text from strangers for a message: short, on one line.
export function excerpt(s: string): string {
  const b = new Bytes().quoted(s.length > 80 ? s.substring(0, 80) : s);
  return String.UTF8.decodeUnsafe(b.pointer, b.length) + (s.length > 80 ? "…" : "");
}

function isDigit(c: i32): bool {
  return c >= 0x30 && c <= 0x39;
}

// Reads a number as all SDKs do: decimal, and neither infinite nor NaN, which here
// stands for "none".
export function parseNumber(s: string): f64 {
  let i = 0;
  let digits = 0;
  const n = s.length;
  if (i < n && (s.charAt(i) == "+" || s.charAt(i) == "-")) i++;
  for (; i < n && isDigit(s.charCodeAt(i)); i++) digits++;
  if (i < n && s.charAt(i) == ".") {
    for (i++; i < n && isDigit(s.charCodeAt(i)); i++) digits++;
  }
  if (digits == 0) return NaN;
  if (i < n && (s.charAt(i) == "e" || s.charAt(i) == "E")) {
    i++;
    if (i < n && (s.charAt(i) == "+" || s.charAt(i) == "-")) i++;
    if (i >= n) return NaN;
    while (i < n && isDigit(s.charCodeAt(i))) i++;
  }
  if (i < n) return NaN;
  const value = parseFloat(s);
  return isFinite(value) ? value : NaN;
}

// Whether text is a whole number. Servers write large ones as 1e+21, and people
// write 10.0, so what a float holds exactly is fine, too.
export function isWhole(s: string): bool {
  if (isPlainInteger(s)) return true;
  const value = parseNumber(s);
  return !isNaN(value) && Math.abs(value) < 9007199254740992.0 && Math.trunc(value) == value;
}

function isPlainInteger(s: string): bool {
  let i = 0;
  const negative = s.charAt(0) == "-";
  if (negative || s.charAt(0) == "+") i++;
  if (i >= s.length) return false;
  let n: u64 = 0;
  const most: u64 = negative ? 1 << 63 : (<u64>1 << 63) - 1;
  for (; i < s.length; i++) {
    const c = s.charCodeAt(i);
    if (!isDigit(c)) return false;
    const digit = <u64>(c - 0x30);
    if (n > (most - digit) / 10) return false;
    n = n * 10 + digit;
  }
  return true;
}

export function parseInteger(s: string): i64 {
  return isPlainInteger(s) ? I64.parseInt(s.startsWith("+") ? s.substring(1) : s, 10) : <i64>parseNumber(s);
}

export function isTrue(s: string): bool {
  return s == "1" || s == "t" || s == "T" || s == "TRUE" || s == "true" || s == "True";
}

export function isFalse(s: string): bool {
  return s == "0" || s == "f" || s == "F" || s == "FALSE" || s == "false" || s == "False";
}
