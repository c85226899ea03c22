//! What counts as personal data: a pattern that finds candidates, and a check that
//! keeps those that can be what they look like.

use std::net::{Ipv4Addr, Ipv6Addr};

use crate::pattern::{word, Pattern};

/// One form of personal data.
pub struct Rule {
    pub kind: String,
    pub pattern: Pattern,
    /// The most bytes that a match may have.
    pub most: usize,
    /// What joins a match with more of its like, so that neither is one: a fifth part
    /// of an IP address.
    pub joins: &'static [u8],
    pub check: fn(&str) -> bool,
}

/// The most bytes of any match, and so of what is looked at ahead of a place.
pub const MOST: usize = 320;

/// The kinds that are known by name, in the order in which they are tried: of two
/// that begin at the same place and are as long, the first counts.
pub const KINDS: [&str; 5] = ["email", "iban", "card", "ip", "phone"];

const PHONE: &str = concat!(
    r"\b((\+|00)[1-9]\d{0,2}([ ./\-]?\(?\d{1,5}\)?){2,7}", // with the country
    r"|\(?0[1-9]\d{0,4}\)?[ /\-]\d{2,8}([ \-]?\d{1,5}){0,4}", // with an area, as in Europe
    r"|\(?[2-9]\d{2}\)?[ .\-]\d{3}[ .\-]\d{4})\b", // and in North America
);

/// The rules of a kind.
pub fn known(kind: &str) -> Vec<Rule> {
    let rule = |pattern, most, joins, check| Rule { kind: kind.into(), pattern: Pattern::new(pattern).expect("a pattern of ours"), most, joins, check };
    match kind {
        // RFC 5321 allows 64 bytes before the @ and 255 after it.
        "email" => vec![rule(r"\b\w[\w.%+'\-]*@([A-Za-z0-9]([A-Za-z0-9\-]*[A-Za-z0-9])?\.)+[A-Za-z]{2,24}\b", MOST, b"", email)],
        // In groups of four, as on paper, or without spaces.
        "iban" => vec![rule(r"\b[A-Za-z]{2}\d{2}( ?[A-Za-z0-9]{4}){2,7}( ?[A-Za-z0-9]{1,3})?\b", 42, b"", iban)],
        "card" => vec![rule(r"\b[2-6](\d[ \-]?){10,17}\d\b", 37, b"", card)],
        "ip" => vec![
            rule(r"\b\d{1,3}(\.\d{1,3}){3}\b", 15, b".", |text| text.parse::<Ipv4Addr>().is_ok()),
            rule(r"\b[0-9A-Fa-f:]*:[0-9A-Fa-f]*:[0-9A-Fa-f:.]*[0-9A-Fa-f]\b", 45, b".:", |text| text.parse::<Ipv6Addr>().is_ok()),
        ],
        "phone" => vec![rule(PHONE, 30, b"", phone)],
        _ => Vec::new(),
    }
}

/// A rule of the item's own.
pub fn custom(kind: &str, pattern: &str) -> Result<Rule, String> {
    if pattern.len() > 1000 {
        return Err("it has more than 1000 bytes".into());
    }
    Ok(Rule { kind: kind.into(), pattern: Pattern::new(pattern)?, most: MOST, joins: b"", check: |_| true })
}

/// A rule for words that are given one by one.
pub fn words<'a>(list: impl Iterator<Item = &'a str>) -> Result<Option<Rule>, String> {
    let patterns: Vec<String> = list.map(word).collect();
    if patterns.is_empty() {
        return Ok(None);
    }
    let pattern = format!("\\b({})\\b", patterns.join("|"));
    Ok(Some(Rule { kind: "word".into(), pattern: Pattern::new(&pattern)?, most: MOST, joins: b"", check: |_| true }))
}

fn digits(text: &str) -> impl DoubleEndedIterator<Item = u32> + '_ {
    text.chars().filter_map(|c| c.to_digit(10))
}

fn email(text: &str) -> bool {
    let at = text.find('@').unwrap_or(0);
    let local = &text[..at];
    at <= 64 && text.len() - at <= 256 && !local.contains("..") && !local.ends_with('.')
}

/// How many characters an IBAN has, by country (ISO 13616).
const IBAN: &str = "AD24 AE23 AL28 AT20 AZ28 BA20 BE16 BG22 BH22 BR29 BY28 CH21 CR22 CY28 CZ24 DE22 DK18 DO28 EE20 EG29 ES24 FI18 FO18 FR27 GB22 GE22 \
    GI23 GL18 GR27 GT28 HR21 HU28 IE22 IL23 IQ23 IS26 IT27 JO30 KW30 KZ20 LB28 LC32 LI21 LT20 LU20 LV21 LY25 MC27 MD24 ME22 MK19 MR27 MT31 MU30 NL18 \
    NO15 PK24 PL28 PS29 PT25 QA29 RO24 RS22 SA24 SC31 SD18 SE24 SI19 SK24 SM27 ST25 SV28 TL23 TN24 TR26 UA29 VA22 VG24 XK20";

fn iban(text: &str) -> bool {
    let compact: String = text.chars().filter(|c| *c != ' ').collect::<String>().to_ascii_uppercase();
    if !IBAN.split_whitespace().any(|c| compact.starts_with(&c[..2]) && c[2..].parse() == Ok(compact.len())) {
        return false;
    }
    // ISO 7064: country and check digits go to the end, letters count from 10.
    let remainder = compact[4..].chars().chain(compact[..4].chars()).fold(0, |r, c| {
        let n = c.to_digit(36).unwrap_or(0);
        (if n < 10 { r * 10 + n } else { r * 100 + n }) % 97
    });
    remainder == 1
}

/// A number as the networks give them out, with the check digit of ISO/IEC 7812,
/// which is Luhn's.
fn card(text: &str) -> bool {
    let count = digits(text).count();
    let prefix = digits(text).take(4).fold(0, |n, d| n * 10 + d);
    let given = match prefix {
        4000..=4999 => [13, 16, 19].contains(&count),
        3400..=3499 | 3700..=3799 => count == 15,
        3000..=3099 | 3600..=3699 | 3800..=3999 => count == 14,
        2221..=2720 | 5100..=5599 => count == 16,
        3500..=3599 | 5000..=5099 | 5600..=5899 | 6000..=6999 => [16, 18, 19].contains(&count),
        _ => false,
    };
    let sum: u32 = digits(text)
        .rev()
        .enumerate()
        .map(|(i, d)| match i % 2 {
            0 => d,
            _ if d > 4 => d * 2 - 9,
            _ => d * 2,
        })
        .sum();
    given && sum % 10 == 0
}

fn phone(text: &str) -> bool {
    let count = digits(text).count();
    // A bracket that is opened is closed, and what looks like a date is one.
    let brackets = text.matches('(').count() == text.matches(')').count();
    let parts: Vec<&str> = text.split(&['-', '/', '.', ' '][..]).collect();
    let date = parts.len() == 3 && parts.iter().all(|p| p.bytes().all(|b| b.is_ascii_digit())) && {
        let lengths: Vec<usize> = parts.iter().map(|p| p.len()).collect();
        lengths == [2, 2, 4] || lengths == [2, 2, 2]
    };
    (7..=15).contains(&count) && brackets && !date
}
