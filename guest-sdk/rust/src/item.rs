use std::time::Duration;

use crate::error::Error;
use crate::host::{check, find, get, import};
use crate::json::{self, Value};
use crate::provider::{boolean, excerpt, integer, number, Provider};

/// The request that an item is about. Text is "" where there is none.
#[derive(Clone, Debug, Default)]
pub struct WorkItem {
    pub hash: String,
    pub capability: String,
    pub action: String,
    pub operation_hash: String,
    pub run_id: String,
    /// Counts from 1; 0 when the server does not count.
    pub attempt: i64,
    /// Absolute.
    pub source_path: String,
    pub output_path: String,
}

/// One piece of work, as an action sees it.
pub struct Item {
    pub work: WorkItem,
    values: Vec<(String, String)>, // by setting of the action; defaults filled in
    std_out: bool,
    pub(crate) error: Option<Error>, // of the first output that could not be set
}

/// How serious a line of the log is.
#[derive(Clone, Copy)]
pub enum Level {
    Debug,
    Info,
    Warning,
    Error,
}

/// The percentage of work whose end is not known.
pub const UNKNOWN: f64 = f64::NAN;

impl Item {
    /// Finds the action, checks the settings, runs it.
    pub(crate) fn execute(provider: &Provider) -> Result<(), Error> {
        let json = get(|| "read the work item".into(), |buf, cap, len| unsafe { import::work_item(buf, cap, len) })?;
        let mut work = WorkItem::default();
        json::members(&json, |name, raw| match name {
            "WorkItemHash" => work.hash = json::text(raw),
            "Capability" => work.capability = json::text(raw),
            "Action" => work.action = json::text(raw),
            "OperationHash" => work.operation_hash = json::text(raw),
            "RunID" => work.run_id = json::text(raw),
            "SourcePath" => work.source_path = json::text(raw),
            "OutputPath" => work.output_path = json::text(raw),
            "AttemptNumber" => work.attempt = raw.parse().unwrap_or(0), // informative; the host writes a number
            _ => {}
        });
        let action = provider.find(&work.action).ok_or_else(|| {
            let names: Vec<_> = provider.actions.iter().map(|a| a.name.as_str()).collect();
            Error::new(format!("unknown action {}: {} has {}", excerpt(&work.action), provider.capability, names.join(", ")))
        })?;
        work.action = action.name.clone();
        crate::entry::running(&action.name);
        let mut item = Item { work, values: Vec::new(), std_out: false, error: None };
        for s in &action.settings {
            let value = match item.lookup(&s.name)? {
                Some(value) if !value.is_empty() => {
                    s.check(&value)?;
                    value
                }
                _ if s.required => return Err(Error::new(format!("setting {} is missing: {}", s.name, s.description))),
                _ => s.default.clone(),
            };
            item.values.push((s.name.clone(), value));
        }
        let mut result = (action.run)(&mut item);
        if let Err(err) = &result {
            if let Some(code) = err.exit_code() {
                item.set("ExitCode", code);
                if !item.std_out {
                    item.set("StdOut", err.to_string());
                }
                result = Ok(());
            }
        }
        match item.error {
            Some(err) if result.is_ok() => Err(err),
            _ => result,
        }
    }

    /// A setting that the action declares, or its default. Another name is a
    /// mistake in the provider, and a panic.
    pub fn text(&self, name: &str) -> &str {
        match self.values.iter().find(|(n, _)| n == name) {
            Some((_, value)) => value,
            None => panic!("setting {} is not among the settings of action {}: declare it, or use lookup", name, self.work.action),
        }
    }

    fn typed<T: Default>(&self, name: &str, kind: &str, parse: fn(&str) -> Option<T>) -> T {
        match self.text(name) {
            "" => T::default(),
            text => parse(text).unwrap_or_else(|| panic!("setting {} is not {}", name, kind)),
        }
    }

    pub fn int(&self, name: &str) -> i64 {
        self.typed(name, "an integer", integer)
    }

    pub fn number(&self, name: &str) -> f64 {
        self.typed(name, "a number", number)
    }

    pub fn bool(&self, name: &str) -> bool {
        self.typed(name, "a boolean", boolean)
    }

    /// Any setting as text: what is in a JSON string, the JSON of anything else.
    /// None when it is absent or null.
    pub fn lookup(&self, name: &str) -> Result<Option<String>, Error> {
        find(|| format!("read setting {}", name), |buf, cap, len| unsafe { import::setting(name.as_ptr(), name.len(), buf, cap, len) })
    }

    /// All settings as a JSON object, as the server sent them.
    pub fn settings(&self) -> Result<String, Error> {
        get(|| "read the settings".into(), |buf, cap, len| unsafe { import::settings(buf, cap, len) })
    }

    /// A value of the configuration that the operator gave; all of it for "".
    pub fn config(&self, name: &str) -> Result<Option<String>, Error> {
        config(name)
    }

    /// How far the item has come, in percent; [`UNKNOWN`] is a percentage, too. Call
    /// it as often as you like: the host throttles.
    pub fn progress(&self, percent: f64, message: &str) {
        unsafe { import::progress(percent, 0, 0, message.as_ptr(), message.len()) };
    }

    /// The step, of total, that begins; it counts from 1.
    pub fn step(&self, step: u32, total: u32, message: &str) {
        let percent = if total > 0 { (f64::from(step) - 1.0) / f64::from(total) * 100.0 } else { UNKNOWN };
        unsafe { import::progress(percent, step, total, message.as_ptr(), message.len()) };
    }

    /// Adds lines to the item's log, which the server gets.
    pub fn log(&self, text: &str) {
        log(Level::Info, text);
    }

    pub fn debug(&self, text: &str) {
        log(Level::Debug, text);
    }

    pub fn warn(&self, text: &str) {
        log(Level::Warning, text);
    }

    /// Sets an output; setting it again replaces it. One that cannot be set fails the
    /// item.
    pub fn set(&mut self, name: &str, value: impl Value) {
        let mut out = String::new();
        let failed = match value.append(&mut out) {
            Err(why) => Some(why),
            Ok(()) => match unsafe { import::output(name.as_ptr(), name.len(), out.as_ptr(), out.len()) } {
                0 => None,
                number => Some(crate::Errno(number).to_string()),
            },
        };
        match failed {
            Some(why) if self.error.is_none() => self.error = Some(Error::new(format!("set output {}: {}", name, why))),
            None if name == "StdOut" => self.std_out = true,
            _ => {}
        }
    }

    /// Sets the primary output, Result.
    pub fn result(&mut self, value: impl Value) {
        self.set("Result", value);
    }

    /// Sets the output StdOut: text for people.
    pub fn std_out(&mut self, text: &str) {
        self.set("StdOut", text);
    }

    /// The time left until the item's deadline; None when it has none.
    pub fn remaining(&self) -> Option<Duration> {
        let mut ms = u64::MAX;
        match unsafe { import::remaining(&mut ms) } {
            0 if ms != u64::MAX => Some(Duration::from_millis(ms)),
            _ => None,
        }
    }

    /// True once the host wants the item to end and leaves it a moment to do so.
    /// Items that run for long ask now and then.
    pub fn cancelled(&self) -> bool {
        unsafe { import::cancelled() == 7 }
    }
}

/// A value of the configuration that the operator gave to the provider, for hooks;
/// items have [`Item::config`].
pub fn config(name: &str) -> Result<Option<String>, Error> {
    find(|| format!("read configuration {}", name), |buf, cap, len| unsafe { import::config(name.as_ptr(), name.len(), buf, cap, len) })
}

/// Adds lines to the log, where there is no item at hand.
pub fn log(level: Level, text: &str) {
    const MOST: usize = 64 << 10;
    let mut rest = text.as_bytes();
    while rest.len() > MOST {
        // The host cuts longer calls, so this does first, between lines.
        let cut = rest[..MOST].iter().rposition(|&c| c == b'\n').map_or(MOST, |i| i + 1);
        unsafe { import::log(level as u32, rest.as_ptr(), cut) };
        rest = &rest[cut..];
    }
    unsafe { import::log(level as u32, rest.as_ptr(), rest.len()) };
}

/// The time since 1970, in steps of a millisecond.
pub fn now() -> Duration {
    clock(0)
}

/// The time since some moment, never backwards.
pub fn monotonic() -> Duration {
    clock(1)
}

fn clock(number: u32) -> Duration {
    let mut ns = 0;
    unsafe { import::now(number, &mut ns) };
    Duration::from_nanos(ns)
}

/// Fills the buffer with random bytes.
pub fn random(buf: &mut [u8]) -> Result<(), Error> {
    for part in buf.chunks_mut(1 << 20) {
        check(unsafe { import::random(part.as_mut_ptr(), part.len()) }, || "random".into())?;
    }
    Ok(())
}

pub fn sleep(time: Duration) {
    let (none, mut index) = ([0u32; 1], 0);
    unsafe { import::handle_wait(none.as_ptr(), 0, time.as_millis().min(i64::MAX as u128) as i64, &mut index) };
}
