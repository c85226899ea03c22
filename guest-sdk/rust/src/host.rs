//! The functions of beacon_v1, as hostfuncs/ABI.md describes them, and what all
//! calls of them have in common. The linker drops those that nothing reaches.

use crate::error::{Errno, Error};

pub mod import {
    #[link(wasm_import_module = "beacon_v1")]
    extern "C" {
        pub fn work_item(buf: *mut u8, cap: usize, len: *mut u32) -> u32;
        pub fn settings(buf: *mut u8, cap: usize, len: *mut u32) -> u32;
        pub fn setting(name: *const u8, name_len: usize, buf: *mut u8, cap: usize, len: *mut u32) -> u32;
        pub fn config(name: *const u8, name_len: usize, buf: *mut u8, cap: usize, len: *mut u32) -> u32;
        pub fn progress(percent: f64, step: u32, total: u32, message: *const u8, len: usize) -> u32;
        pub fn log(level: u32, text: *const u8, len: usize) -> u32;
        pub fn output(name: *const u8, name_len: usize, json: *const u8, len: usize) -> u32;
        pub fn fail(message: *const u8, len: usize) -> u32;
        pub fn describe(json: *const u8, len: usize) -> u32;
        pub fn last_error(buf: *mut u8, cap: usize, len: *mut u32) -> u32;
        pub fn remaining(milliseconds: *mut u64) -> u32;
        pub fn cancelled() -> u32;
        pub fn now(clock: u32, nanoseconds: *mut u64) -> u32;
        pub fn random(buf: *mut u8, len: usize) -> u32;
        pub fn file_open(path: *const u8, len: usize, flags: u32, fd: *mut u32) -> u32;
        pub fn file_read(fd: u32, buf: *mut u8, cap: usize, n: *mut u32) -> u32;
        pub fn file_write(fd: u32, data: *const u8, len: usize, n: *mut u32) -> u32;
        pub fn file_seek(fd: u32, offset: i64, whence: u32, position: *mut u64) -> u32;
        pub fn file_size(fd: u32, size: *mut u64) -> u32;
        pub fn file_close(fd: u32) -> u32;
        pub fn file_list(path: *const u8, path_len: usize, buf: *mut u8, cap: usize, len: *mut u32) -> u32;
        pub fn file_remove(path: *const u8, len: usize) -> u32;
        pub fn file_rename(from: *const u8, from_len: usize, to: *const u8, to_len: usize) -> u32;
        pub fn file_make_directory(path: *const u8, len: usize) -> u32;
        pub fn handle_wait(handles: *const u32, len: usize, milliseconds: i64, index: *mut u32) -> u32;
        pub fn handle_close(handle: u32) -> u32;
        pub fn http_open(request: *const u8, len: usize, handle: *mut u32) -> u32;
        pub fn http_write(handle: u32, data: *const u8, len: usize, n: *mut u32) -> u32;
        pub fn http_wait(handle: u32, status: *mut u32) -> u32;
        pub fn http_response(handle: u32, buf: *mut u8, cap: usize, len: *mut u32) -> u32;
        pub fn http_header(handle: u32, name: *const u8, name_len: usize, buf: *mut u8, cap: usize, len: *mut u32) -> u32;
        pub fn http_read(handle: u32, buf: *mut u8, cap: usize, n: *mut u32) -> u32;
        pub fn call_open(request: *const u8, len: usize, handle: *mut u32) -> u32;
        pub fn call_progress(handle: u32, buf: *mut u8, cap: usize, len: *mut u32) -> u32;
        pub fn call_wait(handle: u32) -> u32;
        pub fn call_result(handle: u32, buf: *mut u8, cap: usize, len: *mut u32) -> u32;
        pub fn call_output(handle: u32, name: *const u8, name_len: usize, buf: *mut u8, cap: usize, len: *mut u32) -> u32;
        pub fn secret(name: *const u8, len: usize) -> u32;
    }
}

/// Turns the number that a function answered into an error that says what was
/// attempted.
pub fn check(number: u32, what: impl FnOnce() -> String) -> Result<(), Error> {
    if number == 0 {
        return Ok(());
    }
    let errno = Errno(number);
    let text = match fill(|buf, cap, len| unsafe { import::last_error(buf, cap, len) }) {
        Ok(text) if !text.is_empty() => text,
        _ => errno.to_string(),
    };
    Err(Error::host(errno, format!("{}: {}", what(), text)))
}

/// Calls a function that fills a buffer, again with a larger one when it was too
/// small.
pub fn fill(call: impl Fn(*mut u8, usize, *mut u32) -> u32) -> Result<String, u32> {
    let mut buf = vec![0u8; 512];
    loop {
        let mut length = 0u32;
        match call(buf.as_mut_ptr(), buf.len(), &mut length) {
            0 => {
                buf.truncate(length as usize);
                return Ok(crate::lossy(&buf));
            }
            4 if length as usize > buf.len() => buf = vec![0u8; length as usize],
            number => return Err(number),
        }
    }
}

/// Like fill, with None for what is not there.
pub fn find(what: impl FnOnce() -> String, call: impl Fn(*mut u8, usize, *mut u32) -> u32) -> Result<Option<String>, Error> {
    match fill(call) {
        Ok(text) => Ok(Some(text)),
        Err(3) => Ok(None),
        Err(number) => check(number, what).map(|_| None),
    }
}

/// Like fill, with an error for what is not there.
pub fn get(what: impl FnOnce() -> String, call: impl Fn(*mut u8, usize, *mut u32) -> u32) -> Result<String, Error> {
    match fill(call) {
        Ok(text) => Ok(text),
        Err(number) => check(number, what).map(|_| String::new()),
    }
}
