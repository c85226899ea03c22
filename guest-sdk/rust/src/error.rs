use std::fmt;
use std::io;

/// An error number of beacon_v1.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Errno(pub u32);

impl Errno {
    pub const INVALID: Errno = Errno(2);
    pub const NOT_FOUND: Errno = Errno(3);
    /// The operator did not permit it.
    pub const DENIED: Errno = Errno(5);
    /// Over a limit of size or number.
    pub const LIMIT: Errno = Errno(6);
    pub const CANCELED: Errno = Errno(7);
    pub const EXISTS: Errno = Errno(10);
    pub const NOT_NOW: Errno = Errno(11);
    /// The other side cannot be reached, or broke off.
    pub const NETWORK: Errno = Errno(12);
    /// The time that the provider gave is over.
    pub const TIMEOUT: Errno = Errno(13);
    /// The provider that was called failed.
    pub const FAILED: Errno = Errno(14);
}

const NAMES: [&str; 15] = [
    "no error", "bad pointer", "invalid parameter", "not found", "buffer too small", "not permitted",
    "over a limit of size or number", "the item is being cancelled", "the host or its file system failed",
    "not an open file or handle", "exists already", "not possible now", "the other side cannot be reached or broke off",
    "the time given is over", "the provider that was called failed",
];

impl fmt::Display for Errno {
    fn fmt(&self, f: &mut fmt::Formatter) -> fmt::Result {
        match NAMES.get(self.0 as usize) {
            Some(name) => f.write_str(name),
            None => write!(f, "host error {}", self.0),
        }
    }
}

/// Why an item fails, or, of [`Error::exit`], ends with an exit code.
#[derive(Clone, Debug)]
pub struct Error {
    message: String,
    errno: Option<Errno>,
    code: Option<i32>,
}

/// What actions return: `Ok(())` when the work is done.
pub type Result<T = ()> = std::result::Result<T, Error>;

impl Error {
    /// The provider could not do the work: the item ends as failed with this
    /// message, and the server may try it again.
    pub fn new(message: impl Into<String>) -> Error {
        Error { message: message.into(), errno: None, code: None }
    }

    /// The work was done and came out badly, as with a command that exits non-zero:
    /// the item ends with a result, with this exit code, and the message as StdOut
    /// unless that is set. Servers do not try such items again.
    pub fn exit(code: i32, message: impl Into<String>) -> Error {
        Error { message: message.into(), errno: None, code: Some(code) }
    }

    pub(crate) fn host(errno: Errno, message: String) -> Error {
        Error { message, errno: Some(errno), code: None }
    }

    /// The number that the host answered with, if the error is the host's.
    pub fn errno(&self) -> Option<Errno> {
        self.errno
    }

    /// The code of [`Error::exit`].
    pub fn exit_code(&self) -> Option<i32> {
        self.code
    }
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter) -> fmt::Result {
        f.write_str(&self.message)
    }
}

impl std::error::Error for Error {}

impl From<&str> for Error {
    fn from(message: &str) -> Error {
        Error::new(message)
    }
}

impl From<String> for Error {
    fn from(message: String) -> Error {
        Error::new(message)
    }
}

impl From<io::Error> for Error {
    fn from(err: io::Error) -> Error {
        match err.get_ref().and_then(|inner| inner.downcast_ref::<Error>()) {
            Some(ours) => ours.clone(),
            None => Error::new(err.to_string()),
        }
    }
}

impl From<Error> for io::Error {
    fn from(err: Error) -> io::Error {
        let kind = match err.errno {
            Some(Errno::NOT_FOUND) => io::ErrorKind::NotFound,
            Some(Errno::DENIED) => io::ErrorKind::PermissionDenied,
            Some(Errno::EXISTS) => io::ErrorKind::AlreadyExists,
            Some(Errno::INVALID) => io::ErrorKind::InvalidInput,
            Some(Errno::TIMEOUT) => io::ErrorKind::TimedOut,
            _ => io::ErrorKind::Other,
        };
        io::Error::new(kind, err)
    }
}

impl From<Box<dyn std::error::Error>> for Error {
    fn from(err: Box<dyn std::error::Error>) -> Error {
        Error::new(err.to_string())
    }
}

macro_rules! from_error {
    ($($t:ty),*) => {$(
        impl From<$t> for Error {
            fn from(err: $t) -> Error {
                Error::new(err.to_string())
            }
        }
    )*};
}

from_error!(fmt::Error, std::num::ParseIntError, std::num::ParseFloatError, std::str::Utf8Error, std::string::FromUtf8Error);
