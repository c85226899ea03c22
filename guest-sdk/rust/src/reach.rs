//! What leads out of an item, by permission: requests, and calls of other
//! capabilities.

use std::io;
use std::time::Duration;

use crate::error::Error;
use crate::host::{check, find, get, import};
use crate::item::{Item, UNKNOWN};
use crate::json::{self, member, text_member, Value};
use crate::provider::excerpt;

/// Stands for a secret that the operator granted, in the value of a header. The host
/// puts it in its place, for the hosts that it is meant for; a provider never sees it.
pub fn secret(name: &str) -> String {
    format!("{{{{secret:{}}}}}", name)
}

/// An HTTP request. The operator decides which are permitted.
#[derive(Clone, Default)]
pub struct Request {
    method: String,
    url: String,
    headers: Vec<(String, String)>,
    body: Option<Vec<u8>>,
    stream: Option<i64>,
    timeout: Duration,
    no_redirects: bool,
}

impl Request {
    pub fn new(method: &str, url: &str) -> Request {
        Request { method: method.into(), url: url.into(), ..Request::default() }
    }

    pub fn get(url: &str) -> Request {
        Request::new("GET", url)
    }

    /// Adds a header; its value may hold [`secret`].
    pub fn header(mut self, name: &str, value: &str) -> Request {
        self.headers.push((name.into(), value.into()));
        self
    }

    pub fn body(mut self, data: impl Into<Vec<u8>>) -> Request {
        self.body = Some(data.into());
        self
    }

    /// Announces a body that is written to the [`Pending`] request; its length may be
    /// unknown.
    pub fn stream(mut self, length: Option<u64>) -> Request {
        self.stream = Some(length.map_or(-1, |n| n as i64));
        self
    }

    /// Bounds the exchange, reading of the response included.
    pub fn timeout(mut self, time: Duration) -> Request {
        self.timeout = time;
        self
    }

    /// Makes a redirect a response like any other.
    pub fn no_redirects(mut self) -> Request {
        self.no_redirects = true;
        self
    }

    fn json(&self) -> String {
        let mut out = String::from("{");
        text_member(&mut out, "URL", &self.url);
        if !self.method.is_empty() {
            text_member(&mut out, "Method", &self.method);
        }
        if !self.headers.is_empty() {
            out.push_str(",\"Headers\":{");
            for (name, value) in &self.headers {
                text_member(&mut out, name, value);
            }
            out.push('}');
        }
        if let Some(length) = self.body.as_ref().map(|b| b.len() as i64).or(self.stream) {
            number(&mut out, "BodyLength", length);
        }
        timeout(&mut out, self.timeout);
        if self.no_redirects {
            number(&mut out, "Redirects", 0);
        }
        out.push('}');
        out
    }
}

fn number(out: &mut String, name: &str, value: i64) {
    let _ = member(out, name, &value); // whole numbers can always be written
}

/// Writes a bound, rounded up: 0 would be none.
fn timeout(out: &mut String, time: Duration) {
    if time > Duration::ZERO {
        number(out, "TimeoutMs", (time.as_nanos() + 999_999).min(i64::MAX as u128 / 2) as i64 / 1_000_000);
    }
}

/// A request or call that is under way. Dropping it ends it.
struct Handle(Option<u32>);

impl Handle {
    fn number(&self) -> u32 {
        self.0.unwrap_or(u32::MAX)
    }

    fn close(&mut self) -> u32 {
        self.0.take().map_or(0, |handle| unsafe { import::handle_close(handle) })
    }
}

impl Drop for Handle {
    fn drop(&mut self) {
        self.close();
    }
}

/// What [`wait_any`] can wait for: [`Pending`] and [`Running`].
pub trait Waitable {
    fn handle(&self) -> u32;
}

/// Waits until one of them can go on, and returns its place; None when the time is
/// over first. Without a time, only the item's deadline ends it.
pub fn wait_any(list: &[&dyn Waitable], time: Option<Duration>) -> Result<Option<usize>, Error> {
    let handles: Vec<u32> = list.iter().map(|w| w.handle()).collect();
    let ms = time.map_or(-1, |t| t.as_millis().min(i64::MAX as u128) as i64);
    let mut index = 0;
    check(unsafe { import::handle_wait(handles.as_ptr(), handles.len() * 4, ms, &mut index) }, || "wait".into())?;
    Ok(Some(index as usize).filter(|&i| i < list.len()))
}

impl Item {
    /// Makes a request and waits for its response, whatever its status.
    pub fn fetch(&self, request: &Request) -> Result<Response, Error> {
        self.send(request)?.response()
    }

    /// Starts a request, so that several can be under way.
    pub fn send(&self, request: &Request) -> Result<Pending, Error> {
        let what = format!("request {}", excerpt(&request.url));
        let description = request.json();
        let mut handle = 0;
        check(unsafe { import::http_open(description.as_ptr(), description.len(), &mut handle) }, || what.clone())?;
        let mut pending = Pending { handle: Handle(Some(handle)), what };
        if let Some(body) = &request.body {
            pending.send(body)?;
        }
        Ok(pending)
    }

    /// True when the operator granted the secret.
    pub fn has_secret(&self, name: &str) -> bool {
        unsafe { import::secret(name.as_ptr(), name.len()) == 0 }
    }

    /// Carries out a call and waits for it. A callee that did its work with a non-zero
    /// exit code is no error: see [`Outcome::exit_code`].
    pub fn call(&self, call: &Call) -> Result<Outcome, Error> {
        self.begin(call)?.wait()
    }

    /// Starts a call, so that several can be under way.
    pub fn begin(&self, call: &Call) -> Result<Running, Error> {
        let what = call.name();
        let description = call.json().map_err(|why| Error::new(format!("{}: {}", what, why)))?;
        let mut handle = 0;
        check(unsafe { import::call_open(description.as_ptr(), description.len(), &mut handle) }, || what.clone())?;
        Ok(Running { handle: Handle(Some(handle)), what })
    }
}

/// A request that is under way. What is written to it is sent as its body.
pub struct Pending {
    handle: Handle,
    what: String,
}

impl Waitable for Pending {
    fn handle(&self) -> u32 {
        self.handle.number()
    }
}

impl Pending {
    /// Sends on the body. False when the server has answered already and wants no
    /// more of it.
    pub fn send(&mut self, mut data: &[u8]) -> Result<bool, Error> {
        while !data.is_empty() {
            let mut n = 0;
            check(unsafe { import::http_write(self.handle.number(), data.as_ptr(), data.len(), &mut n) }, || self.what.clone())?;
            if n == 0 {
                return Ok(false);
            }
            data = &data[n as usize..];
        }
        Ok(true)
    }

    /// Ends the body and waits for the response.
    pub fn response(self) -> Result<Response, Error> {
        let mut status = 0;
        check(unsafe { import::http_wait(self.handle.number(), &mut status) }, || self.what.clone())?;
        Ok(Response { status, pending: self })
    }
}

/// The answer to a request; reading it reads its body.
pub struct Response {
    pub status: u32,
    pending: Pending,
}

impl Response {
    /// The values of a header, joined with ", "; None when there is none.
    pub fn header(&self, name: &str) -> Option<String> {
        let handle = self.pending.handle();
        find(|| self.pending.what.clone(), |buf, cap, len| unsafe { import::http_header(handle, name.as_ptr(), name.len(), buf, cap, len) }).unwrap_or(None)
    }

    /// The head of the response as JSON: Status, URL, Proto, Headers, Length.
    pub fn description(&self) -> Result<String, Error> {
        let handle = self.pending.handle();
        get(|| self.pending.what.clone(), |buf, cap, len| unsafe { import::http_response(handle, buf, cap, len) })
    }

    /// Reads the rest of the body as text.
    pub fn text(mut self) -> Result<String, Error> {
        let mut data = Vec::new();
        io::Read::read_to_end(&mut self, &mut data)?;
        self.close()?;
        Ok(crate::lossy(&data))
    }

    pub fn close(mut self) -> Result<(), Error> {
        let number = self.pending.handle.close();
        check(number, || self.pending.what.clone())
    }
}

impl io::Read for Response {
    fn read(&mut self, buf: &mut [u8]) -> io::Result<usize> {
        let mut n = 0;
        check(unsafe { import::http_read(self.pending.handle(), buf.as_mut_ptr(), buf.len(), &mut n) }, || self.pending.what.clone())?;
        Ok(n as usize)
    }
}

/// What becomes of a callee's progress.
#[derive(Clone, Copy, PartialEq, Eq)]
pub enum CalleeProgress {
    Drop,
    /// It becomes the item's.
    Forward,
    /// It is for [`Running::progress`].
    Keep,
}

/// Asks another capability of the beacon for an action. The operator decides which
/// calls are permitted.
pub struct Call {
    capability: String,
    action: String,
    settings: Vec<(String, Result<String, String>)>,
    source: String,
    output: String,
    timeout: Duration,
    progress: CalleeProgress,
}

impl Call {
    pub fn new(capability: &str) -> Call {
        Call {
            capability: capability.into(),
            action: String::new(),
            settings: Vec::new(),
            source: String::new(),
            output: String::new(),
            timeout: Duration::ZERO,
            progress: CalleeProgress::Drop,
        }
    }

    /// Without one it is the capability's first.
    pub fn action(mut self, name: &str) -> Call {
        self.action = name.into();
        self
    }

    pub fn setting(mut self, name: &str, value: impl Value) -> Call {
        let mut raw = String::new();
        let value = value.append(&mut raw).map(|_| raw);
        self.settings.push((name.into(), value));
        self
    }

    /// A file of the item's directory that the callee gets a copy of.
    pub fn source(mut self, name: &str) -> Call {
        self.source = name.into();
        self
    }

    /// Where the callee's output goes, in the same directory.
    pub fn output(mut self, name: &str) -> Call {
        self.output = name.into();
        self
    }

    pub fn timeout(mut self, time: Duration) -> Call {
        self.timeout = time;
        self
    }

    pub fn progress(mut self, what: CalleeProgress) -> Call {
        self.progress = what;
        self
    }

    fn name(&self) -> String {
        match self.action.as_str() {
            "" => format!("call {}", self.capability),
            action => format!("call {}/{}", self.capability, action),
        }
    }

    fn json(&self) -> Result<String, String> {
        let mut out = String::from("{");
        text_member(&mut out, "Capability", &self.capability);
        if !self.action.is_empty() {
            text_member(&mut out, "Action", &self.action);
        }
        out.push_str(",\"Settings\":{");
        for (name, value) in &self.settings {
            let raw = value.as_ref().map_err(|why| format!("setting {}: {}", name, why))?;
            member(&mut out, name, &json::Json(raw))?;
        }
        out.push('}');
        if !self.source.is_empty() {
            text_member(&mut out, "Source", &self.source);
        }
        if !self.output.is_empty() {
            text_member(&mut out, "Output", &self.output);
        }
        timeout(&mut out, self.timeout);
        match self.progress {
            CalleeProgress::Drop => {}
            CalleeProgress::Forward => text_member(&mut out, "Progress", "forward"),
            CalleeProgress::Keep => text_member(&mut out, "Progress", "keep"),
        }
        out.push('}');
        Ok(out)
    }
}

/// What a callee said about how far it has come.
#[derive(Clone, Debug)]
pub struct Message {
    /// [`UNKNOWN`] when it did not say.
    pub percent: f64,
    pub message: String,
    pub step: u32,
    pub total: u32,
}

/// A call that is under way.
pub struct Running {
    handle: Handle,
    what: String,
}

impl Waitable for Running {
    fn handle(&self) -> u32 {
        self.handle.number()
    }
}

impl Running {
    /// Waits for the next kept message; None when there is no more.
    pub fn progress(&mut self) -> Result<Option<Message>, Error> {
        let handle = self.handle.number();
        let raw = find(|| self.what.clone(), |buf, cap, len| unsafe { import::call_progress(handle, buf, cap, len) })?;
        Ok(raw.map(|raw| {
            let part = |name| json::find(&raw, name);
            let count = |name| part(name).and_then(|n| n.parse().ok()).unwrap_or(0);
            Message {
                percent: part("Percent").and_then(|n| n.parse().ok()).unwrap_or(UNKNOWN),
                message: part("Message").unwrap_or_default(),
                step: count("Step"),
                total: count("TotalSteps"),
            }
        }))
    }

    /// Waits for the end.
    pub fn wait(self) -> Result<Outcome, Error> {
        check(unsafe { import::call_wait(self.handle.number()) }, || self.what.clone())?;
        Ok(Outcome { running: self })
    }
}

/// What became of a call.
pub struct Outcome {
    running: Running,
}

impl Outcome {
    /// One output as text: what is in a JSON string, the JSON of anything else. None
    /// when it is absent or null.
    pub fn output(&self, name: &str) -> Option<String> {
        let handle = self.running.handle.number();
        find(|| self.running.what.clone(), |buf, cap, len| unsafe { import::call_output(handle, name.as_ptr(), name.len(), buf, cap, len) }).unwrap_or(None)
    }

    /// The callee's: 0 is success.
    pub fn exit_code(&self) -> i32 {
        self.output("ExitCode").and_then(|code| code.parse().ok()).unwrap_or(0)
    }

    /// Outputs and Log as a JSON object.
    pub fn json(&self) -> Result<String, Error> {
        let handle = self.running.handle.number();
        get(|| self.running.what.clone(), |buf, cap, len| unsafe { import::call_result(handle, buf, cap, len) })
    }
}
