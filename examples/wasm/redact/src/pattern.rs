//! Regular expressions that find the ends of matches in linear time: a pattern becomes
//! a non-deterministic automaton, and that a deterministic one, state by state, as the
//! text asks for them.
//!
//! There are literals, `.`, classes such as `[a-z0-9_]` and `[^ ]`, `\d`, `\w`, `\s` and
//! their opposites, groups, `|`, and the repetitions `?`, `*`, `+`, `{2}`, `{2,}` and
//! `{2,5}`. `\b` may stand at the beginning and at the end.

use std::collections::HashMap;

/// Most states that a pattern may have, so that nobody asks for gigabytes with `{1,9999}`.
const MOST_STATES: usize = 50_000;
/// Most states of the deterministic automaton that are kept; then it begins anew.
const MOST_KEPT: usize = 2_000;

/// A set of bytes.
#[derive(Clone, Copy)]
struct Bytes([u64; 4]);

impl Bytes {
    const NONE: Bytes = Bytes([0; 4]);

    fn range(from: u8, to: u8) -> Bytes {
        let mut set = Bytes::NONE;
        (from..=to).for_each(|b| set.add(b));
        set
    }

    fn add(&mut self, b: u8) {
        self.0[usize::from(b >> 6)] |= 1 << (b & 63);
    }

    fn has(&self, b: u8) -> bool {
        self.0[usize::from(b >> 6)] >> (b & 63) & 1 == 1
    }

    fn or(mut self, other: Bytes) -> Bytes {
        self.0.iter_mut().zip(other.0).for_each(|(a, b)| *a |= b);
        self
    }

    /// Those of ASCII that are not in it.
    fn ascii_complement(self) -> Bytes {
        Bytes([!self.0[0], !self.0[1], 0, 0])
    }
}

/// Whether a byte is part of a word; all letters beyond ASCII are.
pub fn is_word(b: u8) -> bool {
    b.is_ascii_alphanumeric() || b == b'_' || b >= 0x80
}

enum Node {
    Byte(Bytes, usize),
    Split(usize, usize),
    Accept,
}

/// A syntax tree.
enum Tree {
    Empty,
    Set(Bytes),
    Concat(Vec<Tree>),
    Either(Vec<Tree>),
    Repeat(Box<Tree>, u32, Option<u32>),
}

/// A pattern that was compiled.
pub struct Pattern {
    nodes: Vec<Node>,
    begins: bool, // at the beginning of a word
    ends: bool,   // at the end of one
    /// The deterministic automaton, as far as it was needed: for each state where each
    /// byte leads, and whether it accepts.
    states: Vec<State>,
    known: HashMap<Vec<u32>, u32>,
    first: Bytes,
}

struct State {
    set: Vec<u32>,
    accepts: bool,
    next: Box<[u32; 256]>,
}

const UNKNOWN: u32 = u32::MAX;
const DEAD: u32 = u32::MAX - 1;

impl Pattern {
    pub fn new(text: &str) -> Result<Pattern, String> {
        let (text, begins) = text.strip_prefix("\\b").map_or((text, false), |rest| (rest, true));
        // "\\b" is a backslash and a b, unlike "\b".
        let slashes = text.strip_suffix('b').map_or(0, |rest| rest.len() - rest.trim_end_matches('\\').len());
        let (text, ends) = if slashes % 2 == 1 { (&text[..text.len() - 2], true) } else { (text, false) };
        let mut parser = Parser { rest: text, depth: 0 };
        let tree = parser.either()?;
        if !parser.rest.is_empty() {
            return Err("there is a ) too many".into());
        }
        let mut nodes = vec![Node::Accept];
        let start = build(&tree, 0, &mut nodes)?;
        let mut pattern = Pattern { nodes, begins, ends, states: Vec::new(), known: HashMap::new(), first: Bytes::NONE };
        let set = pattern.reach([start]);
        if set.contains(&0) {
            return Err("it matches nothing at all, which is everywhere".into());
        }
        for &n in &set {
            if let Node::Byte(bytes, _) = pattern.nodes[n as usize] {
                pattern.first = pattern.first.or(bytes);
            }
        }
        pattern.state(set);
        Ok(pattern)
    }

    /// Finds where matches that begin at a place end, the last one first. It looks no
    /// further than the text given, and takes no more than most bytes.
    pub fn ends_at(&mut self, text: &[u8], at: usize, most: usize, ends: &mut Vec<usize>) {
        ends.clear();
        if !self.first.has(text[at]) || self.begins && at > 0 && is_word(text[at - 1]) && is_word(text[at]) {
            return;
        }
        let mut state = 0;
        for i in at..text.len().min(at + most) {
            state = self.step(state, text[i]);
            if state == DEAD {
                break;
            }
            let inside = i + 1 < text.len() && is_word(text[i]) && is_word(text[i + 1]);
            if self.states[state as usize].accepts && !(self.ends && inside) {
                ends.push(i + 1);
            }
        }
        ends.reverse();
    }

    fn step(&mut self, state: u32, byte: u8) -> u32 {
        let next = self.states[state as usize].next[usize::from(byte)];
        if next != UNKNOWN {
            return next;
        }
        let set = self.reach(self.states[state as usize].set.iter().filter_map(|&n| match &self.nodes[n as usize] {
            Node::Byte(bytes, to) if bytes.has(byte) => Some(*to),
            _ => None,
        }));
        if set.is_empty() {
            self.states[state as usize].next[usize::from(byte)] = DEAD;
            return DEAD;
        }
        if let Some(&known) = self.known.get(&set) {
            self.states[state as usize].next[usize::from(byte)] = known;
            return known;
        }
        if self.states.len() >= MOST_KEPT {
            // The first one stays, which every match begins with.
            self.states.truncate(1);
            self.states[0].next.fill(UNKNOWN);
            self.known.clear();
            self.known.insert(self.states[0].set.clone(), 0);
            return self.state(set);
        }
        let made = self.state(set);
        self.states[state as usize].next[usize::from(byte)] = made;
        made
    }

    fn state(&mut self, set: Vec<u32>) -> u32 {
        if let Some(&known) = self.known.get(&set) {
            return known;
        }
        let number = self.states.len() as u32;
        self.known.insert(set.clone(), number);
        self.states.push(State { accepts: set.contains(&0), set, next: Box::new([UNKNOWN; 256]) });
        number
    }

    /// The nodes that take a byte or accept, of those given and what they lead to
    /// without a byte, sorted.
    fn reach(&self, from: impl IntoIterator<Item = usize>) -> Vec<u32> {
        let mut open: Vec<usize> = from.into_iter().collect();
        let (mut seen, mut set) = (vec![false; self.nodes.len()], Vec::new());
        while let Some(n) = open.pop() {
            if std::mem::replace(&mut seen[n], true) {
                continue;
            }
            match self.nodes[n] {
                Node::Split(a, b) => open.extend([a, b]),
                _ => set.push(n as u32),
            }
        }
        set.sort_unstable();
        set
    }
}

/// Builds the nodes of a tree that goes on at next; returns where it begins.
fn build(tree: &Tree, next: usize, nodes: &mut Vec<Node>) -> Result<usize, String> {
    let mut add = |node| {
        nodes.push(node);
        nodes.len() - 1
    };
    if let Tree::Empty = tree {
        return Ok(next);
    }
    if let Tree::Set(bytes) = tree {
        return Ok(add(Node::Byte(*bytes, next)));
    }
    if nodes.len() > MOST_STATES {
        return Err(format!("it is too large: it would have more than {} states", MOST_STATES));
    }
    match tree {
        Tree::Empty | Tree::Set(_) => Ok(next),
        Tree::Concat(parts) => parts.iter().rev().try_fold(next, |next, part| build(part, next, nodes)),
        Tree::Either(parts) => {
            let mut at = build(&parts[0], next, nodes)?;
            for part in &parts[1..] {
                let other = build(part, next, nodes)?;
                nodes.push(Node::Split(at, other));
                at = nodes.len() - 1;
            }
            Ok(at)
        }
        Tree::Repeat(part, least, most) => {
            let mut at = next;
            match most {
                None => {
                    let place = nodes.len();
                    nodes.push(Node::Accept); // until it is known where it leads
                    let again = build(part, place, nodes)?;
                    nodes[place] = Node::Split(again, next);
                    at = place;
                }
                Some(most) => {
                    for _ in *least..*most {
                        let once = build(part, at, nodes)?;
                        nodes.push(Node::Split(once, next));
                        at = nodes.len() - 1;
                    }
                }
            }
            (0..*least).try_fold(at, |at, _| build(part, at, nodes))
        }
    }
}

struct Parser<'a> {
    rest: &'a str,
    depth: u32,
}

impl Parser<'_> {
    fn take(&mut self) -> Option<char> {
        let c = self.rest.chars().next()?;
        self.rest = &self.rest[c.len_utf8()..];
        Some(c)
    }

    fn skip(&mut self, c: char) -> bool {
        match self.rest.strip_prefix(c) {
            Some(rest) => {
                self.rest = rest;
                true
            }
            None => false,
        }
    }

    fn either(&mut self) -> Result<Tree, String> {
        let mut parts = vec![self.concat()?];
        while self.skip('|') {
            parts.push(self.concat()?);
        }
        Ok(if parts.len() == 1 { parts.remove(0) } else { Tree::Either(parts) })
    }

    fn concat(&mut self) -> Result<Tree, String> {
        let mut parts = Vec::new();
        while !self.rest.is_empty() && !self.rest.starts_with(&['|', ')'][..]) {
            let part = self.atom()?;
            parts.push(self.repeated(part)?);
        }
        Ok(if parts.is_empty() { Tree::Empty } else { Tree::Concat(parts) })
    }

    fn repeated(&mut self, mut part: Tree) -> Result<Tree, String> {
        loop {
            let (least, most) = if self.skip('?') {
                (0, Some(1))
            } else if self.skip('*') {
                (0, None)
            } else if self.skip('+') {
                (1, None)
            } else if self.skip('{') {
                self.count()?
            } else {
                return Ok(part);
            };
            part = Tree::Repeat(Box::new(part), least, most);
        }
    }

    fn count(&mut self) -> Result<(u32, Option<u32>), String> {
        let bad = || "a count is like {2}, {2,} or {2,5}, up to 1000".to_string();
        let (inside, rest) = self.rest.split_once('}').ok_or_else(bad)?;
        self.rest = rest;
        let number = |text: &str| text.parse().ok().filter(|&n: &u32| n <= 1000).ok_or_else(bad);
        let (least, most) = match inside.split_once(',') {
            None => (number(inside)?, Some(number(inside)?)),
            Some((least, "")) => (number(least)?, None),
            Some((least, most)) => (number(least)?, Some(number(most)?)),
        };
        if most.map_or(false, |most| most < least) {
            return Err(bad());
        }
        Ok((least, most))
    }

    fn atom(&mut self) -> Result<Tree, String> {
        match self.take() {
            Some('(') => {
                self.depth += 1;
                if self.depth > 50 {
                    return Err("its groups are nested too deeply".into());
                }
                if let Some(rest) = self.rest.strip_prefix("?:") {
                    self.rest = rest;
                }
                let tree = self.either()?;
                self.depth -= 1;
                if self.skip(')') {
                    Ok(tree)
                } else {
                    Err("a ) is missing".into())
                }
            }
            Some('[') => self.class(),
            Some('.') => Ok(any_but(Bytes::range(b'\n', b'\n'))),
            Some('\\') => {
                let c = self.take().ok_or("it ends in \\")?;
                match named(c) {
                    Some((set, false)) => Ok(Tree::Set(set)),
                    Some((set, true)) => Ok(any_but(set)),
                    None => escaped(c).map(literal),
                }
            }
            Some(c @ ('*' | '+' | '?' | '{')) => Err(format!("there is nothing that {} could repeat", c)),
            Some(c @ ('^' | '$')) => Err(format!("{} is not known here; \\b is, at the beginning and at the end", c)),
            Some(c) => Ok(literal(c)),
            None => Ok(Tree::Empty),
        }
    }

    fn class(&mut self) -> Result<Tree, String> {
        let negated = self.skip('^');
        let (mut set, mut others, mut first) = (Bytes::NONE, Vec::new(), true);
        loop {
            let c = self.take().ok_or("a ] is missing")?;
            let from = match c {
                ']' if !first => break,
                '\\' => {
                    let c = self.take().ok_or("a ] is missing")?;
                    if let Some((named, opposite)) = named(c) {
                        if opposite {
                            return Err(format!("\\{} cannot be in [ ]", c));
                        }
                        set = set.or(named);
                        first = false;
                        continue;
                    }
                    escaped(c)?
                }
                c => c,
            };
            first = false;
            let mut to = from;
            if self.rest.starts_with('-') && !self.rest.starts_with("-]") {
                self.take();
                to = match self.take().ok_or("a ] is missing")? {
                    '\\' => escaped(self.take().ok_or("a ] is missing")?)?,
                    c => c,
                };
            }
            if to < from || to != from && !to.is_ascii() {
                return Err(format!("{}-{} is no range of ASCII", from, to));
            }
            if from.is_ascii() {
                set = set.or(Bytes::range(from as u8, to as u8));
            } else {
                others.push(literal(from));
            }
        }
        if negated {
            return if others.is_empty() { Ok(any_but(set)) } else { Err("[^ ] takes ASCII only".into()) };
        }
        others.push(Tree::Set(set));
        Ok(Tree::Either(others))
    }
}

/// A class by its letter, and whether its opposite is meant.
fn named(c: char) -> Option<(Bytes, bool)> {
    let set = match c.to_ascii_lowercase() {
        'd' => Bytes::range(b'0', b'9'),
        's' => Bytes::range(b'\t', b'\r').or(Bytes::range(b' ', b' ')),
        'w' => (0..=255).filter(|&b| b < 0x80 && is_word(b)).fold(Bytes::NONE, |set, b| set.or(Bytes::range(b, b))),
        _ => return None,
    };
    Some((set, c.is_ascii_uppercase()))
}

fn escaped(c: char) -> Result<char, String> {
    match c {
        'n' => Ok('\n'),
        't' => Ok('\t'),
        'r' => Ok('\r'),
        'b' => Err("\\b is possible at the beginning and at the end only".into()),
        c if c.is_alphanumeric() => Err(format!("\\{} is not known", c)),
        c => Ok(c),
    }
}

fn literal(c: char) -> Tree {
    let mut buffer = [0; 4];
    Tree::Concat(c.encode_utf8(&mut buffer).bytes().map(|b| Tree::Set(Bytes::range(b, b))).collect())
}

/// Any character but those of ASCII in the set; all bytes of it, as UTF-8 has them.
fn any_but(set: Bytes) -> Tree {
    let more = || Tree::Set(Bytes::range(0x80, 0xbf));
    let wide = |from, to, n| Tree::Concat(std::iter::once(Tree::Set(Bytes::range(from, to))).chain((0..n).map(|_| more())).collect());
    Tree::Either(vec![Tree::Set(set.ascii_complement()), wide(0xc2, 0xdf, 1), wide(0xe0, 0xef, 2), wide(0xf0, 0xf4, 3)])
}

/// The pattern of a text, whatever the case of its letters.
pub fn word(text: &str) -> String {
    let escape = |c: char| if c.is_alphanumeric() || c == ' ' { c.to_string() } else { format!("\\{}", c) };
    let forms = |c: char| {
        let mut forms = vec![escape(c), c.to_lowercase().map(escape).collect(), c.to_uppercase().map(escape).collect()];
        forms.sort_unstable();
        forms.dedup();
        forms.join("|")
    };
    text.chars().map(|c| format!("({})", forms(c))).collect()
}
