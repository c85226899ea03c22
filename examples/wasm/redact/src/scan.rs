//! Goes through a text of any length in pieces, and hands on what is between matches,
//! and the matches.

use crate::pattern::is_word;
use crate::rules::{Rule, MOST};

/// What becomes of the text.
pub trait Sink {
    type Error;
    fn text(&mut self, text: &[u8]) -> Result<(), Self::Error>;
    fn found(&mut self, kind: &str, text: &str) -> Result<(), Self::Error>;
}

/// Finds what the rules say. Its results do not depend on how the text is cut into
/// pieces.
pub struct Scanner {
    rules: Vec<Rule>,
    buffer: Vec<u8>,
    at: usize, // where in the buffer the next match may begin
    ends: Vec<usize>,
}

impl Scanner {
    pub fn new(rules: Vec<Rule>) -> Scanner {
        Scanner { rules, buffer: Vec::new(), at: 0, ends: Vec::new() }
    }

    /// Takes on a piece of the text.
    pub fn feed<S: Sink>(&mut self, piece: &[u8], sink: &mut S) -> Result<(), S::Error> {
        self.buffer.extend_from_slice(piece);
        // A match that begins before this place, and two bytes after it, are there.
        let until = self.buffer.len().saturating_sub(MOST + 2);
        self.scan(until, sink)
    }

    /// The text has ended.
    pub fn finish<S: Sink>(&mut self, sink: &mut S) -> Result<(), S::Error> {
        self.scan(self.buffer.len(), sink)
    }

    fn scan<S: Sink>(&mut self, until: usize, sink: &mut S) -> Result<(), S::Error> {
        let mut written = self.at;
        let mut at = self.at;
        while at < until {
            match self.longest(at) {
                Some((rule, end)) => {
                    sink.text(&self.buffer[written..at])?;
                    let found = std::str::from_utf8(&self.buffer[at..end]).unwrap_or("");
                    sink.found(&self.rules[rule].kind, found)?;
                    at = end;
                    written = end;
                }
                None => at += 1,
            }
        }
        sink.text(&self.buffer[written..at])?;
        // The byte before the next one says whether a word begins there.
        let keep = at.saturating_sub(1);
        self.buffer.drain(..keep);
        self.at = at - keep;
        Ok(())
    }

    /// The longest match that begins at a place, with its rule.
    fn longest(&mut self, at: usize) -> Option<(usize, usize)> {
        let (mut best, text) = (None, &self.buffer);
        for (i, rule) in self.rules.iter_mut().enumerate() {
            let joins = |b: u8| rule.joins.contains(&b);
            if at > 0 && (joins(text[at - 1]) || joins(text[at]) && is_word(text[at - 1])) {
                continue;
            }
            rule.pattern.ends_at(text, at, rule.most, &mut self.ends);
            for &end in &self.ends {
                if best.map_or(false, |(_, longest)| end <= longest) {
                    break;
                }
                let joined = end + 1 < text.len() && joins(text[end]) && (is_word(text[end + 1]) || joins(text[end + 1]));
                if !joined && std::str::from_utf8(&text[at..end]).map_or(false, rule.check) {
                    best = Some((i, end));
                    break;
                }
            }
        }
        best
    }
}
