//! What the functions that [`crate::serve`] exports do.

use std::sync::Mutex;

use crate::error::Error;
use crate::host::{check, import};
use crate::item::Item;
use crate::provider::{Hook, Provider};

/// What runs, for the message of a panic.
static RUNNING: Mutex<String> = Mutex::new(String::new());

pub(crate) fn running(action: &str) {
    set_running(format!("action {}", action));
}

fn set_running(what: String) {
    if let Ok(mut running) = RUNNING.lock() {
        *running = what;
    }
}

/// The provider, once it was found good: what is made before the first item, all
/// items begin with.
static SERVED: Mutex<Option<&'static Provider>> = Mutex::new(None);

fn served(provider: fn() -> Provider) -> Result<&'static Provider, Error> {
    let mut served = SERVED.lock().map_err(|_| Error::new("the provider panicked before"))?;
    if let Some(provider) = *served {
        return Ok(provider);
    }
    let made: &'static Provider = Box::leak(Box::new(provider()));
    made.validate()?;
    *served = Some(made);
    Ok(made)
}

fn fail(text: &str) {
    unsafe { import::fail(text.as_ptr(), text.len()) };
}

/// A panic cannot be caught here, so it says why, and then ends the module; the
/// item's log has where.
fn watch() {
    std::panic::set_hook(Box::new(|info| {
        let text = match (info.payload().downcast_ref::<&str>(), info.payload().downcast_ref::<String>()) {
            (Some(text), _) => text,
            (_, Some(text)) => text.as_str(),
            _ => "a value that has no text",
        };
        let running = RUNNING.try_lock().map_or(String::new(), |r| r.clone());
        if let Some(place) = info.location() {
            crate::log(crate::Level::Error, &format!("panic at {}", place));
        }
        fail(&format!("panic in {}: {}", running, text));
        #[cfg(target_arch = "wasm32")]
        core::arch::wasm32::unreachable();
    }));
}

fn answer(provider: fn() -> Provider, what: &str, f: impl FnOnce(&'static Provider) -> Result<(), Error>) -> i32 {
    watch();
    set_running(what.into());
    match served(provider).and_then(f) {
        Ok(()) => 0,
        Err(err) => {
            fail(&err.to_string());
            1
        }
    }
}

fn hook(name: &str, hook: Option<Hook>) -> Result<(), Error> {
    match hook {
        Some(hook) => hook().map_err(|err| Error::new(format!("{}: {}", name, err))),
        None => Ok(()),
    }
}

pub fn describe(provider: fn() -> Provider) -> i32 {
    answer(provider, "describe", |p| {
        let manifest = p.manifest();
        check(unsafe { import::describe(manifest.as_ptr(), manifest.len()) }, || "describe".into())
    })
}

pub fn initialize(provider: fn() -> Provider) -> i32 {
    answer(provider, "initialize", |p| hook("initialize", p.initialize))
}

pub fn execute(provider: fn() -> Provider) -> i32 {
    answer(provider, "reseed", |p| {
        hook("reseed", p.reseed)?;
        Item::execute(p)
    })
}

pub fn shutdown(provider: fn() -> Provider) -> i32 {
    answer(provider, "shutdown", |p| hook("shutdown", p.shutdown))
}
