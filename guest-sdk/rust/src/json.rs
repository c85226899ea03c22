//! As much of JSON as a provider takes: values are written, and what the host
//! sends is read.

/// Something that can be an output, or a setting of a call.
pub trait Value {
    /// Appends the value as JSON. An error says why that cannot be.
    fn append(&self, out: &mut String) -> Result<(), String>;
}

/// A value that is JSON already: it is handed on as it is.
pub struct Json<T>(pub T);

/// Bytes, which become base64.
pub struct Bytes<T>(pub T);

impl<T: AsRef<str>> Value for Json<T> {
    fn append(&self, out: &mut String) -> Result<(), String> {
        if self.0.as_ref().is_empty() {
            return Err("it is empty, which is not JSON".into());
        }
        out.push_str(self.0.as_ref());
        Ok(())
    }
}

impl<T: AsRef<[u8]>> Value for Bytes<T> {
    fn append(&self, out: &mut String) -> Result<(), String> {
        const DIGITS: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
        let data = self.0.as_ref();
        out.reserve(data.len() / 3 * 4 + 6);
        out.push('"');
        for part in data.chunks(3) {
            let at = |i: usize| *part.get(i).unwrap_or(&0) as usize;
            let bits = at(0) << 16 | at(1) << 8 | at(2);
            for i in 0..4 {
                out.push(if i <= part.len() { DIGITS[bits >> (18 - 6 * i) & 63] as char } else { '=' });
            }
        }
        out.push('"');
        Ok(())
    }
}

impl Value for str {
    fn append(&self, out: &mut String) -> Result<(), String> {
        string(out, self);
        Ok(())
    }
}

impl Value for String {
    fn append(&self, out: &mut String) -> Result<(), String> {
        string(out, self);
        Ok(())
    }
}

impl<T: Value + ?Sized> Value for &T {
    fn append(&self, out: &mut String) -> Result<(), String> {
        (**self).append(out)
    }
}

/// None is null.
impl<T: Value> Value for Option<T> {
    fn append(&self, out: &mut String) -> Result<(), String> {
        match self {
            Some(value) => value.append(out),
            None => {
                out.push_str("null");
                Ok(())
            }
        }
    }
}

impl<T: Value> Value for [T] {
    fn append(&self, out: &mut String) -> Result<(), String> {
        out.push('[');
        for (i, value) in self.iter().enumerate() {
            if i > 0 {
                out.push(',');
            }
            value.append(out)?;
        }
        out.push(']');
        Ok(())
    }
}

impl<T: Value> Value for Vec<T> {
    fn append(&self, out: &mut String) -> Result<(), String> {
        self.as_slice().append(out)
    }
}

macro_rules! plain {
    ($($t:ty),*) => {$(
        impl Value for $t {
            fn append(&self, out: &mut String) -> Result<(), String> {
                out.push_str(&self.to_string());
                Ok(())
            }
        }
    )*};
}

plain!(bool, i8, i16, i32, i64, isize, u8, u16, u32, u64, usize);

impl Value for f64 {
    fn append(&self, out: &mut String) -> Result<(), String> {
        if !self.is_finite() {
            return Err("it is not a finite number, which JSON cannot say".into());
        }
        let size = self.abs();
        out.push_str(&if size == 0.0 || (1e-6..1e21).contains(&size) { format!("{}", self) } else { format!("{:e}", self) });
        Ok(())
    }
}

impl Value for f32 {
    fn append(&self, out: &mut String) -> Result<(), String> {
        f64::from(*self).append(out)
    }
}

pub fn string(out: &mut String, text: &str) {
    out.reserve(text.len() + 2);
    out.push('"');
    let mut start = 0;
    for (i, c) in text.bytes().enumerate() {
        if c >= b' ' && c != b'"' && c != b'\\' {
            continue;
        }
        out.push_str(&text[start..i]);
        match c {
            b'"' => out.push_str("\\\""),
            b'\\' => out.push_str("\\\\"),
            b'\n' => out.push_str("\\n"),
            _ => out.push_str(&format!("\\u{:04x}", c)),
        }
        start = i + 1;
    }
    out.push_str(&text[start..]);
    out.push('"');
}

/// Appends a member to an object that was begun with a brace.
pub fn member(out: &mut String, name: &str, value: &(impl Value + ?Sized)) -> Result<(), String> {
    if !out.ends_with('{') {
        out.push(',');
    }
    string(out, name);
    out.push(':');
    value.append(out)
}

/// The same, of text.
pub fn text_member(out: &mut String, name: &str, text: &str) {
    if !out.ends_with('{') {
        out.push(',');
    }
    string(out, name);
    out.push(':');
    string(out, text);
}

fn space(s: &[u8], mut i: usize) -> usize {
    while i < s.len() && s[i].is_ascii_whitespace() {
        i += 1;
    }
    i
}

/// The end of the value at i, which the host has written, so that it is JSON.
fn value_end(s: &[u8], mut i: usize) -> usize {
    let (mut depth, mut quoted) = (0, false);
    while i < s.len() {
        match s[i] {
            b'\\' if quoted => i += 1,
            b'"' => {
                quoted = !quoted;
                if !quoted && depth == 0 {
                    return i + 1;
                }
            }
            _ if quoted => {}
            b'{' | b'[' => depth += 1,
            b'}' | b']' if depth == 0 => return i,
            b'}' | b']' => {
                depth -= 1;
                if depth == 0 {
                    return i + 1;
                }
            }
            b',' | b' ' | b'\n' if depth == 0 => return i,
            _ => {}
        }
        i += 1;
    }
    s.len()
}

/// The content of a JSON string, the JSON of anything else.
pub fn text(raw: &str) -> String {
    let inner = match raw.strip_prefix('"').and_then(|rest| rest.strip_suffix('"')) {
        Some(inner) => inner,
        None => return raw.to_string(),
    };
    let mut out = String::with_capacity(inner.len());
    let mut rest = inner;
    while let Some(i) = rest.find('\\') {
        out.push_str(&rest[..i]);
        let kind = rest[i + 1..].chars().next().unwrap_or('\\');
        rest = &rest[(i + 1 + kind.len_utf8()).min(rest.len())..];
        match kind {
            'n' => out.push('\n'),
            't' => out.push('\t'),
            'r' => out.push('\r'),
            'b' => out.push('\x08'),
            'f' => out.push('\x0c'),
            'u' => {
                let unit = |s: &str| s.get(..4).and_then(|digits| u32::from_str_radix(digits, 16).ok());
                let mut c = unit(rest).unwrap_or(0xfffd);
                rest = rest.get(4..).unwrap_or("");
                if (0xd800..0xdc00).contains(&c) {
                    let low = rest.strip_prefix("\\u").and_then(unit).filter(|low| (0xdc00..0xe000).contains(low));
                    if let Some(low) = low {
                        c = 0x10000 + ((c - 0xd800) << 10) + (low - 0xdc00);
                        rest = &rest[6..];
                    }
                }
                out.push(char::from_u32(c).unwrap_or('\u{fffd}'));
            }
            other => out.push(other),
        }
    }
    out.push_str(rest);
    out
}

/// Calls visit with the name and the raw value of each member of an object.
pub fn members<'a>(json: &'a str, mut visit: impl FnMut(&str, &'a str)) {
    let s = json.as_bytes();
    let mut i = space(s, 0);
    if s.get(i) != Some(&b'{') {
        return;
    }
    i = space(s, i + 1);
    while s.get(i) == Some(&b'"') {
        let end = value_end(s, i);
        let name = text(&json[i..end]);
        i = space(s, space(s, end) + 1); // the colon
        let end = value_end(s, i);
        visit(&name, json.get(i..end).unwrap_or(""));
        i = space(s, end);
        if s.get(i) == Some(&b',') {
            i = space(s, i + 1);
        }
    }
}

/// Calls visit with each raw element of an array.
pub fn elements<'a>(json: &'a str, mut visit: impl FnMut(&'a str)) {
    let s = json.as_bytes();
    let mut i = space(s, 0);
    if s.get(i) != Some(&b'[') {
        return;
    }
    i = space(s, i + 1);
    while i < s.len() && s[i] != b']' {
        let end = value_end(s, i);
        visit(&json[i..end]);
        i = space(s, end);
        if s.get(i) == Some(&b',') {
            i = space(s, i + 1);
        }
    }
}

/// One member of a JSON object that the host sent, as text: the content of a JSON
/// string, the JSON of anything else. None when it is absent or null.
pub fn find(json: &str, name: &str) -> Option<String> {
    let mut found = None;
    members(json, |n, raw| {
        if n == name && raw != "null" {
            found = Some(text(raw));
        }
    });
    found
}
