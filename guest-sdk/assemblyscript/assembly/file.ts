import * as host from "./host";
import { cell, cell32, cell64, ok } from "./failure";
import { utf8 } from "./text";

// A file of the item. What is open when the item ends is closed then.
export class File {
  static readonly READ: u32 = 1;
  static readonly WRITE: u32 = 2;
  static readonly CREATE: u32 = 4;
  static readonly TRUNCATE: u32 = 8;
  static readonly APPEND: u32 = 16;
  // Fail if the file exists.
  static readonly EXCLUSIVE: u32 = 32;

  // Its size in bytes when it was opened.
  size: i64 = 0;
  // How many bytes were read and written.
  count: i64 = 0;

  constructor(
    private descriptor: u32,
    readonly name: string,
  ) {}

  // Null for a failure.
  static open(name: string, flags: u32): File | null {
    const n = utf8(name);
    const verb = flags & File.CREATE ? "create " : "open ";
    if (!ok(host.file_open(n.pointer, n.length, flags, cell()), verb + name)) return null;
    const file = new File(cell32(), name);
    if (!ok(host.file_size(file.descriptor, cell()), verb + name)) return null;
    file.size = <i64>cell64();
    return file;
  }

  // How many bytes were read into the array: 0 at the end, -1 for a failure.
  read(data: Uint8Array): i32 {
    if (!ok(host.file_read(this.descriptor, data.dataStart, data.length, cell()), "read " + this.name)) return -1;
    this.count += cell32();
    return <i32>cell32();
  }

  // Writes all of it.
  write(data: Uint8Array): bool {
    let p = data.dataStart;
    let left = data.length;
    while (left > 0) {
      if (!ok(host.file_write(this.descriptor, p, left, cell()), "write " + this.name)) return false;
      const n = <i32>cell32();
      p += n;
      left -= n;
      this.count += n;
    }
    return true;
  }

  // The new position, -1 for a failure. Whence: 0 start, 1 current, 2 end.
  seek(offset: i64, whence: i32 = 0): i64 {
    return ok(host.file_seek(this.descriptor, offset, whence, cell()), "seek in " + this.name) ? <i64>cell64() : -1;
  }

  close(): bool {
    const descriptor = this.descriptor;
    this.descriptor = u32.MAX_VALUE; // the number may be another's from now on
    return descriptor == u32.MAX_VALUE || ok(host.file_close(descriptor), "close " + this.name);
  }

  // How much of it was read, for Item.progress.
  percent(): f64 {
    return this.size <= 0 ? NaN : min(100, (<f64>this.count / <f64>this.size) * 100);
  }
}
