//! redact finds personal data in text and masks it, or reports where it is: e-mail
//! addresses, phone numbers, IBANs, card numbers, IP addresses, words that are given,
//! and what patterns of one's own match. Files of any size go through in pieces.

mod pattern;
mod rules;
mod scan;

use std::collections::BTreeMap;
use std::collections::HashMap;
use std::io::{BufWriter, Read, Write};

use beacon::{Action, Error, Example, File, Item, Json, Provider, Result, Setting};

use rules::{Rule, KINDS};
use scan::{Scanner, Sink};

beacon::serve!(provider);

fn provider() -> Provider {
    let rules = |action: Action| {
        action
            .setting(Setting::text("Kinds").default("email,phone,iban,card,ip").description("what to look for, or none"))
            .setting(Setting::text("Words").description("names and other words, one a line, whatever their case"))
            .setting(Setting::text("Rules").description("patterns of your own, one a line, such as order = \\bORD-\\d{6}\\b"))
    };
    Provider::new("redact", "1.0.0", "Redact")
        .description("Finds personal data in text, and masks it.")
        .action(
            rules(Action::new("Mask", mask))
                .description("writes the text again, with personal data masked")
                .setting(
                    Setting::text("Style")
                        .default("label")
                        .options(&["label", "number", "stars", "partial"])
                        .description("[EMAIL]; [EMAIL-1], the same for the same value; *****; or all but the last four"),
                )
                .example(Example::new().source("data/letter.txt").output("letter.masked.txt")),
        )
        .action(
            rules(Action::new("Find", find))
                .description("reports where personal data is, without saying what it is: a JSON object a line")
                .example(Example::new().source("data/letter.txt").output("found.jsonl")),
        )
}

/// The rules that an item asks for, or what is wrong with them.
fn wanted(item: &Item) -> Result<Vec<Rule>> {
    let mut list = Vec::new();
    let lines = |name| item.text(name).lines().map(str::trim).filter(|line| !line.is_empty());
    // What is the item's own goes before what is known.
    for line in lines("Rules") {
        let (kind, pattern) = line.split_once('=').ok_or_else(|| Error::exit(2, format!("rule {:?} is not of the form name = pattern", line)))?;
        let kind = kind.trim();
        if kind.is_empty() || !kind.chars().all(|c| c.is_ascii_alphanumeric() || c == '_') {
            return Err(Error::exit(2, format!("rule {:?}: its name is made of letters, digits and _", line)));
        }
        list.push(rules::custom(kind, pattern.trim()).map_err(|why| Error::exit(2, format!("rule {}: {}", kind, why)))?);
    }
    list.extend(rules::words(lines("Words")).map_err(|why| Error::exit(2, format!("the words are too many: {}", why)))?);
    let kinds: Vec<&str> = item.text("Kinds").split(',').map(str::trim).filter(|k| !k.is_empty() && *k != "none").collect();
    for kind in &kinds {
        if !KINDS.contains(kind) {
            return Err(Error::exit(2, format!("kind {:?} is not known: there are {}, and none", kind, KINDS.join(", "))));
        }
    }
    list.extend(KINDS.iter().filter(|k| kinds.contains(k)).flat_map(|k| rules::known(k)));
    if list.is_empty() {
        return Err(Error::exit(2, "there is nothing to look for: set Kinds, Words or Rules"));
    }
    Ok(list)
}

/// Puts the source through a scanner.
fn run<S: Sink<Error = std::io::Error>>(item: &Item, mut scanner: Scanner, sink: &mut S) -> Result {
    let mut source = item.open_source()?;
    let mut piece = vec![0; 1 << 16];
    loop {
        let n = source.read(&mut piece)?;
        if n == 0 {
            break;
        }
        scanner.feed(&piece[..n], sink)?;
        item.progress(source.percent(), "reading");
    }
    scanner.finish(sink)?;
    Ok(())
}

fn report(item: &mut Item, counts: &BTreeMap<String, u64>, verb: &str) {
    let total: u64 = counts.values().sum();
    // Names are made of letters, digits and _.
    let members: Vec<String> = counts.iter().map(|(kind, n)| format!("\"{}\":{}", kind, n)).collect();
    let parts: Vec<String> = counts.iter().map(|(kind, n)| format!("{} {}", n, kind)).collect();
    item.set("Counts", Json(format!("{{{}}}", members.join(","))));
    item.set("Total", total);
    item.result(match total {
        0 => "nothing was found".to_string(),
        _ => format!("{} {}: {}", total, verb, parts.join(", ")),
    });
}

fn mask(item: &mut Item) -> Result {
    let scanner = Scanner::new(wanted(item)?);
    let mut masker = Masker {
        output: BufWriter::with_capacity(1 << 16, item.create_output()?),
        style: item.text("Style").to_string(),
        counts: BTreeMap::new(),
        numbers: HashMap::new(),
    };
    run(item, scanner, &mut masker)?;
    masker.output.flush()?;
    report(item, &masker.counts, "masked");
    Ok(())
}

/// Most values of a kind that the style number tells apart.
const MOST_NUMBERS: usize = 200_000;

struct Masker {
    output: BufWriter<File>,
    style: String,
    counts: BTreeMap<String, u64>,
    numbers: HashMap<String, HashMap<String, usize>>, // by kind and value
}

impl Sink for Masker {
    type Error = std::io::Error;

    fn text(&mut self, text: &[u8]) -> std::io::Result<()> {
        self.output.write_all(text)
    }

    fn found(&mut self, kind: &str, text: &str) -> std::io::Result<()> {
        match self.counts.get_mut(kind) {
            Some(n) => *n += 1,
            None => drop(self.counts.insert(kind.into(), 1)),
        }
        let label = kind.to_uppercase();
        match self.style.as_str() {
            "number" => {
                let known = self.numbers.entry(label.clone()).or_default();
                let next = known.len() + 1;
                let number = *known.entry(text.to_lowercase()).or_insert(next);
                if number > MOST_NUMBERS {
                    return Err(Error::exit(1, format!("there are more than {} values of kind {} to tell apart: take the style label", MOST_NUMBERS, kind)).into());
                }
                write!(self.output, "[{}-{}]", label, number)
            }
            "stars" => self.output.write_all(stars(text, 0).as_bytes()),
            "partial" => self.output.write_all(stars(text, 4).as_bytes()),
            _ => write!(self.output, "[{}]", label),
        }
    }
}

/// A star for each letter and digit but the last ones, of which no more than a third
/// is left to be seen.
fn stars(text: &str, keep: usize) -> String {
    let count = text.chars().filter(|c| c.is_alphanumeric()).count();
    let hidden = count - keep.min(count / 3);
    let mut seen = 0;
    text.chars()
        .map(|c| {
            seen += usize::from(c.is_alphanumeric());
            if c.is_alphanumeric() && seen <= hidden { '*' } else { c }
        })
        .collect()
}

fn find(item: &mut Item) -> Result {
    let scanner = Scanner::new(wanted(item)?);
    let mut finder = Finder { output: BufWriter::new(item.create_output()?), counts: BTreeMap::new(), offset: 0, line: 1, column: 1 };
    run(item, scanner, &mut finder)?;
    finder.output.flush()?;
    report(item, &finder.counts, "found");
    Ok(())
}

/// Writes down places: lines and columns count from 1, columns in characters.
struct Finder {
    output: BufWriter<File>,
    counts: BTreeMap<String, u64>,
    offset: u64,
    line: u64,
    column: u64,
}

impl Finder {
    fn pass(&mut self, text: &[u8]) {
        self.offset += text.len() as u64;
        for &b in text {
            if b == b'\n' {
                self.line += 1;
                self.column = 1;
            } else if b & 0xc0 != 0x80 {
                self.column += 1;
            }
        }
    }
}

impl Sink for Finder {
    type Error = std::io::Error;

    fn text(&mut self, text: &[u8]) -> std::io::Result<()> {
        self.pass(text);
        Ok(())
    }

    fn found(&mut self, kind: &str, text: &str) -> std::io::Result<()> {
        *self.counts.entry(kind.into()).or_insert(0) += 1;
        let (line, column, offset) = (self.line, self.column, self.offset);
        self.pass(text.as_bytes());
        writeln!(self.output, r#"{{"Kind":"{}","Line":{},"Column":{},"Offset":{},"Bytes":{}}}"#, kind, line, column, offset, text.len())
    }
}
