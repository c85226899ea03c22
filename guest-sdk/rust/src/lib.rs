//! Providers for Beacon in Rust.
//!
//! A provider is a library of the kind `cdylib`, built for WebAssembly. It hands a
//! [`Provider`] to [`serve!`]; the worker then calls the [`Action`] that a work item
//! asks for, with an [`Item`] to read settings from and to report to. Each action
//! declares its settings; they are checked before it runs, so that it never sees a
//! missing or malformed one.
//!
//! The crate depends on nothing but the standard library, and needs Rust 1.63.

mod entry;
mod error;
mod file;
mod host;
mod item;
mod json;
mod provider;
mod reach;

pub use error::{Errno, Error, Result};
pub use file::{Entry, File, Options};
pub use item::{config, log, monotonic, now, random, sleep, Item, Level, WorkItem, UNKNOWN};
pub use json::{Bytes, Json, Value};
pub use provider::{Action, Example, Hook, Provider, Run, Setting};
pub use reach::{secret, wait_any, Call, CalleeProgress, Message, Outcome, Pending, Request, Response, Running, Waitable};

#[doc(hidden)]
pub use entry::{describe, execute, initialize, shutdown};

/// Makes the provider that a function returns that of this module. Use it once.
#[macro_export]
macro_rules! serve {
    ($provider:path) => {
        #[no_mangle]
        pub extern "C" fn beacon_describe() -> i32 {
            $crate::describe($provider)
        }

        #[no_mangle]
        pub extern "C" fn beacon_initialize() -> i32 {
            $crate::initialize($provider)
        }

        #[no_mangle]
        pub extern "C" fn beacon_execute() -> i32 {
            $crate::execute($provider)
        }

        #[no_mangle]
        pub extern "C" fn beacon_shutdown() -> i32 {
            $crate::shutdown($provider)
        }
    };
}

/// Makes text of bytes: each one that is not UTF-8 becomes U+FFFD.
pub fn lossy(bytes: &[u8]) -> String {
    let (mut out, mut rest) = (String::with_capacity(bytes.len()), bytes);
    loop {
        match std::str::from_utf8(rest) {
            Ok(text) => {
                out.push_str(text);
                return out;
            }
            Err(err) => {
                let (good, bad) = rest.split_at(err.valid_up_to());
                out.push_str(&String::from_utf8_lossy(good));
                out.push('\u{fffd}');
                rest = &bad[1..];
            }
        }
    }
}
