import * as host from "./host";
import { decodeText } from "./text";

// The error numbers of beacon_v1 that a provider may want to tell apart.
export namespace Errno {
  export const OK: u32 = 0;
  export const INVALID: u32 = 2;
  export const NOT_FOUND: u32 = 3;
  // The operator did not permit it.
  export const DENIED: u32 = 5;
  export const LIMIT: u32 = 6;
  export const CANCELED: u32 = 7;
  export const EXISTS: u32 = 10;
  export const NOT_NOW: u32 = 11;
  export const NETWORK: u32 = 12;
  export const TIMEOUT: u32 = 13;
  // The provider that was called failed.
  export const FAILED: u32 = 14;
}

const NAMES: string[] = [
  "no error", "bad pointer", "invalid parameter", "not found", "buffer too small", "not permitted",
  "over a limit of size or number", "the item is being cancelled", "the host or its file system failed",
  "not an open file or handle", "exists already", "not possible now", "the other side cannot be reached or broke off",
  "the time given is over", "the provider that was called failed",
];

export function errnoName(errno: u32): string {
  return errno < <u32>NAMES.length ? NAMES[errno] : "host error " + errno.toString();
}

// What an action returns when the item does not end well, see fail and exit.
export class Failure {
  constructor(
    readonly message: string,
    // The number that the host answered with, 0 if the failure is not the host's.
    readonly errno: u32 = 0,
    readonly code: i32 = 0,
    readonly exits: bool = false,
  ) {}
}

// The provider could not do the work: the item ends as failed with this message,
// and the server may try it again.
export function fail(message: string): Failure {
  return new Failure(message);
}

// The work was done and came out badly, as with a command that exits non-zero: the
// item ends with a result, with this exit code, and the message as StdOut unless
// that is set. Servers do not try such items again.
export function exit(code: i32, message: string): Failure {
  return new Failure(message, 0, code, true);
}

let last: Failure = new Failure("nothing has failed");

// What failed last: functions of the SDK that can fail return null, false or -1
// then, and leave this.
export function failure(): Failure {
  return last;
}

export function note(f: Failure): void {
  last = f;
}

// One number and one buffer that the host writes to.
const CELL: usize = memory.data(8, 8);

export function cell(): usize {
  return CELL;
}

export function cell32(): u32 {
  return load<u32>(CELL);
}

export function cell64(): u64 {
  return load<u64>(CELL);
}

// Whether a function answered 0; if not, failure says what was attempted.
export function ok(errno: u32, what: string): bool {
  if (errno == 0) return true;
  const buf = new ArrayBuffer(4096);
  const p = changetype<usize>(buf);
  let text = errnoName(errno);
  if (host.last_error(p, 4096, CELL) == 0 && cell32() > 0) text = decodeText(p, cell32());
  last = new Failure(what + ": " + text, errno);
  return false;
}

// A number that filled returns besides those of the host.
let filledErrno: u32 = 0;

// What a function that fills a buffer answered.
export function fillErrno(): u32 {
  return filledErrno;
}

// Which function fills a buffer, and about what.
export class Filler {
  constructor(
    readonly call: (f: Filler, buf: usize, cap: usize, len: usize) => u32,
    readonly handle: u32 = 0,
    readonly name: usize = 0,
    readonly nameLen: usize = 0,
  ) {}
}

// Calls a function that fills a buffer, again with a larger one when it was too
// small. Null when it answered anything but 0; see fillErrno.
export function fill(f: Filler): string | null {
  let cap: i32 = 512;
  while (true) {
    const buf = new ArrayBuffer(cap);
    const p = changetype<usize>(buf);
    filledErrno = f.call(f, p, cap, CELL);
    const length = <i32>cell32();
    if (filledErrno == 0) return decodeText(p, length);
    if (filledErrno != 4 || length <= cap) return null;
    cap = length;
  }
}

// The same, with a failure for everything but what is not there.
export function find(f: Filler, what: string): string | null {
  const text = fill(f);
  if (text == null) {
    if (filledErrno == Errno.NOT_FOUND) {
      last = new Failure("", Errno.NOT_FOUND);
    } else {
      ok(filledErrno, what);
    }
  }
  return text;
}

// The same, with a failure for that, too.
export function get(f: Filler, what: string): string | null {
  const text = fill(f);
  if (text == null) ok(filledErrno, what);
  return text;
}
