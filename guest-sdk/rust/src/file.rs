use std::io;

use crate::error::Error;
use crate::host::{check, get, import};
use crate::item::{Item, UNKNOWN};
use crate::json;

/// A file of the item. It is read, written and moved in by the traits of `std::io`,
/// and closed when it is dropped; [`File::close`] says whether that went well.
pub struct File {
    descriptor: Option<u32>,
    name: String,
    size: u64,
    count: u64,
}

/// How a file is opened.
#[derive(Clone, Copy, Default)]
pub struct Options(u32);

impl Options {
    pub const READ: Options = Options(1);
    pub const WRITE: Options = Options(2);
    pub const CREATE: Options = Options(4);
    pub const TRUNCATE: Options = Options(8);
    pub const APPEND: Options = Options(16);
    /// Fail if the file exists.
    pub const EXCLUSIVE: Options = Options(32);
}

impl std::ops::BitOr for Options {
    type Output = Options;

    fn bitor(self, other: Options) -> Options {
        Options(self.0 | other.0)
    }
}

/// An entry of a directory.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Entry {
    pub name: String,
    pub size: u64,
    pub directory: bool,
}

impl File {
    fn open(name: &str, options: Options) -> Result<File, Error> {
        let mut descriptor = 0;
        let verb = if options.0 & Options::CREATE.0 != 0 { "create" } else { "open" };
        check(unsafe { import::file_open(name.as_ptr(), name.len(), options.0, &mut descriptor) }, || format!("{} {}", verb, name))?;
        let mut file = File { descriptor: Some(descriptor), name: name.into(), size: 0, count: 0 };
        check(unsafe { import::file_size(descriptor, &mut file.size) }, || format!("{} {}", verb, name))?;
        Ok(file)
    }

    /// Its size in bytes when it was opened.
    pub fn size(&self) -> u64 {
        self.size
    }

    /// How many bytes were read and written.
    pub fn count(&self) -> u64 {
        self.count
    }

    /// How much of it was read, for [`Item::progress`].
    pub fn percent(&self) -> f64 {
        match self.size {
            0 => UNKNOWN,
            size => (self.count as f64 / size as f64 * 100.0).min(100.0),
        }
    }

    pub fn close(mut self) -> Result<(), Error> {
        match self.descriptor.take() {
            Some(descriptor) => check(unsafe { import::file_close(descriptor) }, || format!("close {}", self.name)),
            None => Ok(()),
        }
    }

    fn number(&self) -> u32 {
        self.descriptor.unwrap_or(u32::MAX)
    }
}

impl Drop for File {
    fn drop(&mut self) {
        if let Some(descriptor) = self.descriptor.take() {
            unsafe { import::file_close(descriptor) };
        }
    }
}

impl io::Read for File {
    fn read(&mut self, buf: &mut [u8]) -> io::Result<usize> {
        let mut n = 0;
        check(unsafe { import::file_read(self.number(), buf.as_mut_ptr(), buf.len(), &mut n) }, || format!("read {}", self.name))?;
        self.count += u64::from(n);
        Ok(n as usize)
    }
}

impl io::Write for File {
    fn write(&mut self, buf: &[u8]) -> io::Result<usize> {
        let mut n = 0;
        check(unsafe { import::file_write(self.number(), buf.as_ptr(), buf.len(), &mut n) }, || format!("write {}", self.name))?;
        self.count += u64::from(n);
        Ok(n as usize)
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

impl io::Seek for File {
    fn seek(&mut self, to: io::SeekFrom) -> io::Result<u64> {
        let (offset, whence) = match to {
            io::SeekFrom::Start(n) => (n as i64, 0),
            io::SeekFrom::Current(n) => (n, 1),
            io::SeekFrom::End(n) => (n, 2),
        };
        let mut position = 0;
        check(unsafe { import::file_seek(self.number(), offset, whence, &mut position) }, || format!("seek in {}", self.name))?;
        Ok(position)
    }
}

/// Files of the item's directory. Names are relative to it, with slashes; they
/// cannot lead out of it, and the staged source is read-only.
impl Item {
    /// Opens the source that was staged for the item.
    pub fn open_source(&self) -> Result<File, Error> {
        match self.work.source_path.as_str() {
            "" => Err("the item has no source file: give it one (setting SourceURL, or --source)".into()),
            path => self.open(path),
        }
    }

    /// Creates the file that the item is expected to leave behind.
    pub fn create_output(&self) -> Result<File, Error> {
        match self.work.output_path.as_str() {
            "" => Err("the item names no output file: give it one (setting OutputFilename, or --output)".into()),
            path => self.create(path),
        }
    }

    /// Reads the whole source. [`crate::lossy`] makes text of it.
    pub fn read_source(&self) -> Result<Vec<u8>, Error> {
        let mut file = self.open_source()?;
        let mut data = Vec::with_capacity(file.size as usize + 1);
        io::Read::read_to_end(&mut file, &mut data)?;
        file.close()?;
        Ok(data)
    }

    pub fn write_output(&self, data: &[u8]) -> Result<(), Error> {
        let mut file = self.create_output()?;
        io::Write::write_all(&mut file, data)?;
        file.close()
    }

    pub fn open(&self, name: &str) -> Result<File, Error> {
        File::open(name, Options::READ)
    }

    /// Creates a file, or empties the one there is.
    pub fn create(&self, name: &str) -> Result<File, Error> {
        File::open(name, Options::WRITE | Options::CREATE | Options::TRUNCATE)
    }

    pub fn open_with(&self, name: &str, options: Options) -> Result<File, Error> {
        File::open(name, options)
    }

    /// A directory, sorted by name; "." is the item's.
    pub fn list(&self, name: &str) -> Result<Vec<Entry>, Error> {
        let raw = get(|| format!("list {}", name), |buf, cap, len| unsafe { import::file_list(name.as_ptr(), name.len(), buf, cap, len) })?;
        let mut entries = Vec::new();
        json::elements(&raw, |entry| {
            entries.push(Entry {
                name: json::find(entry, "Name").unwrap_or_default(),
                size: json::find(entry, "Size").and_then(|size| size.parse().ok()).unwrap_or(0),
                directory: json::find(entry, "Directory").as_deref() == Some("true"),
            })
        });
        Ok(entries)
    }

    /// Removes a file or an empty directory.
    pub fn remove(&self, name: &str) -> Result<(), Error> {
        check(unsafe { import::file_remove(name.as_ptr(), name.len()) }, || format!("remove {}", name))
    }

    pub fn rename(&self, from: &str, to: &str) -> Result<(), Error> {
        check(unsafe { import::file_rename(from.as_ptr(), from.len(), to.as_ptr(), to.len()) }, || format!("rename {}", from))
    }

    pub fn make_directory(&self, name: &str) -> Result<(), Error> {
        check(unsafe { import::file_make_directory(name.as_ptr(), name.len()) }, || format!("make directory {}", name))
    }
}
