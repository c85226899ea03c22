import * as host from "./host";
import { cell, cell64, errnoName, fail, failure, Failure, Filler, find, get, note, ok } from "./failure";
import { Action } from "./provider";
import { File } from "./file";
import { Call, Outcome, Pending, Request, Response, Running } from "./reach";
import { base64, Bytes, isTrue, member, parseInteger, parseNumber, utf8 } from "./text";

// The percentage of work whose end is not known.
export const UNKNOWN: f64 = NaN;

// A value that is JSON already.
export class JSON {
  constructor(readonly text: string) {}
}

export const DEBUG = 0;
export const INFO = 1;
export const WARNING = 2;
export const ERROR = 3;

// Adds lines to the log.
export function log(text: string, level: i32 = INFO): void {
  const b = utf8(text);
  const most = 64 << 10;
  let p = b.pointer;
  let left = b.length;
  while (left > most) {
    // The host cuts longer calls, so this does first, between lines.
    let cut = most;
    while (cut > 0 && load<u8>(p + cut - 1) != 10) cut--;
    if (cut == 0) cut = most;
    host.log(level, p, cut);
    p += cut;
    left -= cut;
  }
  host.log(level, p, left);
}

// A value of the configuration that the operator gave to the provider, as text; all
// of it for "". Null when there is none.
export function config(name: string): string | null {
  const n = utf8(name);
  return find(new Filler((f, buf, cap, len) => host.config(f.name, f.nameLen, buf, cap, len), 0, n.pointer, n.length), "read configuration " + name);
}

// Milliseconds since 1970.
export function now(): i64 {
  host.now(0, cell());
  return <i64>(cell64() / 1000000);
}

// Milliseconds since some moment, never backwards.
export function monotonic(): i64 {
  host.now(1, cell());
  return <i64>(cell64() / 1000000);
}

// Fills an array with random bytes.
export function random(data: Uint8Array): bool {
  return ok(host.random(data.dataStart, data.length), "random");
}

export function sleep(milliseconds: i64): void {
  if (milliseconds > 0) host.handle_wait(cell(), 0, milliseconds, cell());
}

// One piece of work, as an action sees it. Text is "" where there is none.
export class Item {
  readonly hash: string;
  readonly capability: string;
  action: string;
  readonly operationHash: string;
  readonly runID: string;
  // Counts from 1; 0 when the server does not count.
  readonly attempt: i32;
  // Absolute.
  readonly sourcePath: string;
  readonly outputPath: string;

  private declared: Action | null = null;
  private values: string[] = [];
  stdOutIsSet: bool = false;
  // What is wrong with the first output that could not be set.
  wrong: string = "";

  constructor(json: string) {
    this.hash = part(json, "WorkItemHash");
    this.capability = part(json, "Capability");
    this.action = part(json, "Action");
    this.operationHash = part(json, "OperationHash");
    this.runID = part(json, "RunID");
    this.attempt = <i32>parseNumber(part(json, "AttemptNumber"));
    this.sourcePath = part(json, "SourcePath");
    this.outputPath = part(json, "OutputPath");
  }

  // Checks the settings of the action.
  prepare(action: Action): Failure | null {
    this.declared = action;
    this.action = action.name;
    for (let i = 0; i < action.settings.length; i++) {
      const s = action.settings[i];
      const value = this.lookup(s.name);
      if (value == null && failure().errno != 3) return failure();
      if (value != null && value != "") {
        const wrong = s.check(value);
        if (wrong != "") return fail(wrong);
        this.values.push(value);
      } else if (s.required_) {
        return fail("setting " + s.name + " is missing: " + s.description_);
      } else {
        this.values.push(s.default_);
      }
    }
    return null;
  }

  // A setting that the action declares, or its default. Another name is a mistake in
  // the provider, and throws.
  text(name: string): string {
    const action = this.declared;
    if (action) {
      for (let i = 0; i < action.settings.length; i++) {
        if (action.settings[i].name == name) return this.values[i];
      }
    }
    throw new Error("setting " + name + " is not among the settings of action " + this.action + ": declare it, or use lookup");
  }

  int(name: string): i64 {
    const text = this.text(name);
    return text == "" ? 0 : parseInteger(text);
  }

  number(name: string): f64 {
    const text = this.text(name);
    return text == "" ? 0 : parseNumber(text);
  }

  bool(name: string): bool {
    return isTrue(this.text(name));
  }

  // Any setting as text: what is in a JSON string, the JSON of anything else. Null
  // when it is absent or null.
  lookup(name: string): string | null {
    const n = utf8(name);
    return find(new Filler((f, buf, cap, len) => host.setting(f.name, f.nameLen, buf, cap, len), 0, n.pointer, n.length), "read setting " + name);
  }

  // All settings as a JSON object, as the server sent them; null for a failure.
  settings(): string | null {
    return get(new Filler((f, buf, cap, len) => host.settings(buf, cap, len)), "read the settings");
  }

  config(name: string): string | null {
    return config(name);
  }

  // How far the item has come, in percent; UNKNOWN is a percentage, too. Call it as
  // often as you like: the host throttles.
  progress(percent: f64, message: string): void {
    const m = utf8(message);
    host.progress(percent, 0, 0, m.pointer, m.length);
  }

  // The step, of total, that begins; it counts from 1.
  step(step: i32, total: i32, message: string): void {
    const m = utf8(message);
    host.progress(total > 0 ? (<f64>(step - 1) / <f64>total) * 100 : UNKNOWN, step, total, m.pointer, m.length);
  }

  // Adds lines to the item's log, which the server gets.
  log(text: string): void {
    log(text, INFO);
  }

  debug(text: string): void {
    log(text, DEBUG);
  }

  warn(text: string): void {
    log(text, WARNING);
  }

  // Sets an output: text, a number, a truth value, an array of text, Uint8Array
  // (base64), or JSON. Setting it again replaces it. One that cannot be set fails the
  // item.
  set<T>(name: string, value: T): void {
    const b = new Bytes();
    if (isString<T>()) {
      b.quoted(<string>value);
    } else if (isBoolean<T>()) {
      b.text(value ? "true" : "false");
    } else if (isFloat<T>()) {
      if (!isFinite(value)) return this.refuse(name, "it is not a finite number, which JSON cannot say");
      b.text(value.toString());
    } else if (isInteger<T>()) {
      b.text(value.toString());
    } else if (value instanceof JSON) {
      b.text(value.text);
      if (b.length == 0) return this.refuse(name, "it is empty, which is not JSON");
    } else if (value instanceof Uint8Array) {
      base64(value, b);
    } else if (value instanceof Array<string>) {
      b.text("[");
      for (let i = 0; i < value.length; i++) {
        if (i > 0) b.text(",");
        b.quoted(value[i]);
      }
      b.text("]");
    } else {
      ERROR("an output is text, a number, a truth value, string[], Uint8Array or JSON");
    }
    this.setRaw(name, b);
  }

  setNull(name: string): void {
    this.setRaw(name, utf8("null"));
  }

  private setRaw(name: string, json: Bytes): void {
    const n = utf8(name);
    const errno = host.output(n.pointer, n.length, json.pointer, json.length);
    if (errno != 0) return this.refuse(name, errnoName(errno));
    if (name == "StdOut") this.stdOutIsSet = true;
  }

  private refuse(name: string, why: string): void {
    if (this.wrong == "") this.wrong = "set output " + name + ": " + why;
  }

  // Sets the primary output, Result.
  result<T>(value: T): void {
    this.set("Result", value);
  }

  // Sets the output StdOut: text for people.
  stdOut(text: string): void {
    this.set("StdOut", text);
  }

  // Milliseconds until the item's deadline; -1 when it has none.
  remaining(): i64 {
    return host.remaining(cell()) == 0 && <i64>cell64() >= 0 ? <i64>cell64() : -1;
  }

  // True once the host wants the item to end and leaves it a moment to do so. Items
  // that run for long ask now and then.
  cancelled(): bool {
    return host.cancelled() == 7;
  }

  // Opens the source that was staged for the item; null for a failure, as with all
  // that follows.
  openSource(): File | null {
    if (this.sourcePath != "") return this.open(this.sourcePath);
    note(fail("the item has no source file: give it one (setting SourceURL, or --source)"));
    return null;
  }

  // Creates the file that the item is expected to leave behind.
  createOutput(): File | null {
    if (this.outputPath != "") return this.create(this.outputPath);
    note(fail("the item names no output file: give it one (setting OutputFilename, or --output)"));
    return null;
  }

  readSource(): Uint8Array | null {
    const file = this.openSource();
    if (!file) return null;
    const all = new Bytes();
    const part = new Uint8Array(64 << 10);
    for (;;) {
      const n = file.read(part);
      if (n < 0) return null;
      if (n == 0) break;
      all.add(part.dataStart, n);
    }
    if (!file.close()) return null;
    const data = new Uint8Array(all.length);
    memory.copy(data.dataStart, all.pointer, all.length);
    return data;
  }

  writeOutput(data: Uint8Array): bool {
    const file = this.createOutput();
    return file != null && file.write(data) && file.close();
  }

  // Opens a file of the item's directory. Names are relative to it, with slashes.
  open(name: string): File | null {
    return File.open(name, File.READ);
  }

  // Creates a file, or empties the one there is.
  create(name: string): File | null {
    return File.open(name, File.WRITE | File.CREATE | File.TRUNCATE);
  }

  // A directory as a JSON array of {"Name","Size","Directory"}, sorted by name; "." is
  // the item's.
  list(name: string): string | null {
    const n = utf8(name);
    return get(new Filler((f, buf, cap, len) => host.file_list(f.name, f.nameLen, buf, cap, len), 0, n.pointer, n.length), "list " + name);
  }

  // Removes a file or an empty directory.
  remove(name: string): bool {
    const n = utf8(name);
    return ok(host.file_remove(n.pointer, n.length), "remove " + name);
  }

  rename(from: string, to: string): bool {
    const a = utf8(from);
    const b = utf8(to);
    return ok(host.file_rename(a.pointer, a.length, b.pointer, b.length), "rename " + from);
  }

  makeDirectory(name: string): bool {
    const n = utf8(name);
    return ok(host.file_make_directory(n.pointer, n.length), "make directory " + name);
  }

  // Makes a request and waits for its response, whatever its status.
  fetch(request: Request): Response | null {
    const pending = this.send(request);
    return pending ? pending.response() : null;
  }

  // Starts a request, so that several can be under way.
  send(request: Request): Pending | null {
    return Pending.start(request);
  }

  // True when the operator granted the secret.
  hasSecret(name: string): bool {
    const n = utf8(name);
    return host.secret(n.pointer, n.length) == 0;
  }

  // Carries out a call and waits for it. A callee that did its work with a non-zero
  // exit code is no failure: see Outcome.exitCode.
  call(call: Call): Outcome | null {
    const running = this.begin(call);
    return running ? running.wait() : null;
  }

  // Starts a call, so that several can be under way.
  begin(call: Call): Running | null {
    return Running.start(call);
  }
}

function part(json: string, name: string): string {
  const text = member(json, name);
  return text ? text : "";
}
