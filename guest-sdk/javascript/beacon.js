// Providers for Beacon in JavaScript: what scripts find as `beacon`. README.md says
// how to write one, hostfuncs/ABI.md describes the functions of the host.

// The last value of this file is the function that the host's entries call; see
// shim.wat.
(() => {
  "use strict";

  const host = globalThis.h;
  delete globalThis.h;

  // The functions of beacon_v1 by number, in the order of shim.wat, and those of the
  // shim itself.
  const F = {
    work_item: 0, settings: 1, setting: 2, config: 3, progress: 4, log: 5, output: 6, fail: 7, describe: 8, last_error: 9, remaining: 10, cancelled: 11,
    now: 12, random: 13, file_open: 14, file_read: 15, file_write: 16, file_seek: 17, file_size: 18, file_close: 19, file_list: 20, file_remove: 21,
    file_rename: 22, file_make_directory: 23, handle_wait: 24, handle_close: 25, http_open: 26, http_write: 27, http_wait: 28, http_response: 29,
    http_header: 30, http_read: 31, call_open: 32, call_progress: 33, call_wait: 34, call_result: 35, call_output: 36, secret: 37,
    encode: 100, decode: 101, exit: 102, trap: 103,
  };

  // ---- Text and errors ----

  const CODES = ["ok", "fault", "invalid", "not_found", "range", "denied", "limit", "canceled", "io", "bad_descriptor", "exists", "not_now", "network", "timeout", "failed"];
  const NAMES = [
    "no error", "bad pointer", "invalid parameter", "not found", "buffer too small", "not permitted",
    "over a limit of size or number", "the item is being cancelled", "the host or its file system failed",
    "not an open file or handle", "exists already", "not possible now", "the other side cannot be reached or broke off",
    "the time given is over", "the provider that was called failed",
  ];

  const utf8 = (text) => new Uint8Array(host(F.encode, String(text)));

  // The length of the UTF-8 sequence at i, 0 if there is none.
  function sequence(b, i, end) {
    const c = b[i];
    const n = c < 0x80 ? 1 : c >= 0xc2 && c < 0xe0 ? 2 : c >= 0xe0 && c < 0xf0 ? 3 : c >= 0xf0 && c < 0xf5 ? 4 : 0;
    if (i + n > end) return 0;
    for (let k = 1; k < n; k++) if ((b[i + k] & 0xc0) !== 0x80) return 0;
    const second = b[i + 1];
    if ((c === 0xe0 && second < 0xa0) || (c === 0xed && second >= 0xa0) || (c === 0xf0 && second < 0x90) || (c === 0xf4 && second >= 0x90)) return 0;
    return n;
  }

  // Makes text of bytes: each one that is not UTF-8 becomes U+FFFD.
  function text(bytes) {
    const fast = host(F.decode, bytes, bytes.length);
    if (!fast.includes("\ufffd")) return fast; // nothing was wrong with it
    const parts = [];
    let start = 0;
    let i = 0;
    while (i < bytes.length) {
      const n = sequence(bytes, i, bytes.length);
      if (n > 0) {
        i += n;
        continue;
      }
      parts.push(host(F.decode, bytes.subarray(start, i), i - start));
      start = ++i;
    }
    parts.push(host(F.decode, bytes.subarray(start), i - start));
    return parts.join("\ufffd");
  }

  // What the host refused. Its code is a word of ABI.md, such as "denied".
  class HostError extends Error {
    constructor(errno, message) {
      super(message);
      this.name = "HostError";
      this.code = CODES[errno] ?? String(errno);
    }
  }

  // Ends an item with a result; see exit.
  class Exit extends Error {
    constructor(code, message) {
      super(message);
      this.name = "Exit";
      this.code = code;
    }
  }

  const cell = new Uint8Array(8);
  const view = new DataView(cell.buffer);
  const cell32 = () => view.getUint32(0, true);
  const cell64 = () => view.getUint32(0, true) + view.getUint32(4, true) * 2 ** 32;

  function raise(errno, what) {
    const [bad, said] = fill((buf) => host(F.last_error, buf, cell));
    throw new HostError(errno, what + ": " + (bad === 0 && said !== "" ? said : (NAMES[errno] ?? "host error " + errno)));
  }

  function check(errno, what) {
    if (errno !== 0) raise(errno, what);
  }

  // Calls a function that fills a buffer, again with a larger one when it was too
  // small.
  function fill(call) {
    let buf = new Uint8Array(512);
    for (;;) {
      const errno = call(buf);
      const length = cell32();
      if (errno === 0) return [0, host(F.decode, buf, length)];
      if (errno !== 4 || length <= buf.length) return [errno, null];
      buf = new Uint8Array(length);
    }
  }

  // The same, with undefined for what is not there.
  function find(what, call) {
    const [errno, value] = fill(call);
    if (errno === 3) return undefined;
    check(errno, what);
    return value;
  }

  function get(what, call) {
    const [errno, value] = fill(call);
    check(errno, what);
    return value;
  }

  const bytes = (data) => (data instanceof Uint8Array ? data : data instanceof ArrayBuffer ? new Uint8Array(data) : utf8(data));

  // Quotes text from strangers for a message: short, on one line.
  const excerpt = (s) => JSON.stringify(s.slice(0, 80)) + (s.length > 80 ? "…" : "");

  const DIGITS = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
  function base64(b) {
    let out = "";
    for (let i = 0; i < b.length; i += 3) {
      const bits = (b[i] << 16) | ((b[i + 1] ?? 0) << 8) | (b[i + 2] ?? 0);
      out += DIGITS[bits >> 18] + DIGITS[(bits >> 12) & 63] + (i + 1 < b.length ? DIGITS[(bits >> 6) & 63] : "=") + (i + 2 < b.length ? DIGITS[bits & 63] : "=");
    }
    return out;
  }

  // ---- Settings ----

  const NUMBER = /^[+-]?(\d+\.?\d*|\.\d+)([eE][+-]?\d+)?$/;

  function parseNumber(s) {
    const n = NUMBER.test(s) ? Number(s) : NaN;
    return Number.isFinite(n) ? n : undefined;
  }

  // Servers write large whole numbers as 1e+21, and people write 10.0, so what a
  // number holds exactly is fine, too. Larger ones are a BigInt.
  function parseInteger(s) {
    if (/^[+-]?\d+$/.test(s)) {
      const big = BigInt(s.replace("+", ""));
      if (big < -(2n ** 63n) || big >= 2n ** 63n) return undefined;
      return Number.isSafeInteger(Number(big)) ? Number(big) : big;
    }
    const n = parseNumber(s);
    return Number.isSafeInteger(n) ? n : undefined;
  }

  function parseBoolean(s) {
    if (["1", "t", "T", "TRUE", "true", "True"].includes(s)) return true;
    return ["0", "f", "F", "FALSE", "false", "False"].includes(s) ? false : undefined;
  }

  const TYPES = {
    string: { data: "String", empty: "", parse: (s) => s },
    number: { data: "Number", empty: 0, parse: parseNumber, want: "a number" },
    integer: { data: "Number", empty: 0, parse: parseInteger, want: "a whole number" },
    boolean: { data: "Boolean", empty: false, parse: parseBoolean, want: "true or false" },
  };

  // The value of a setting, which is not "".
  function parse(name, declared, s) {
    const type = TYPES[declared.type ?? "string"];
    const value = type.parse(s);
    let want = value === undefined ? type.want : undefined;
    if (want === undefined && declared.options && !declared.options.includes(s)) want = "one of " + declared.options.join(", ");
    if (want !== undefined) throw new Error(`setting ${name} is ${excerpt(s)}: want ${want}`);
    return value;
  }

  // ---- Files ----

  const FLAGS = { read: 1, write: 2, create: 4, truncate: 8, append: 16, exclusive: 32 };

  class File {
    #descriptor;

    constructor(name, flags) {
      const n = utf8(name);
      const bits = flags.reduce((all, flag) => all | (FLAGS[flag] ?? 1 << 31), 0);
      const what = (bits & FLAGS.create ? "create " : "open ") + name;
      check(host(F.file_open, n, bits, cell), what);
      this.#descriptor = cell32();
      check(host(F.file_size, this.#descriptor, cell), what);
      this.name = name;
      this.size = cell64(); // when it was opened
      this.count = 0; // bytes read and written
    }

    // Reads on, at most so many bytes, into a new Uint8Array or the one given. What it
    // returns is empty at the end.
    read(into = 65536) {
      const buf = into instanceof Uint8Array ? into : new Uint8Array(into);
      check(host(F.file_read, this.#descriptor, buf, cell), "read " + this.name);
      const n = cell32();
      this.count += n;
      return buf.subarray(0, n);
    }

    // Reads the rest.
    readAll() {
      const parts = [];
      for (let part = this.read(); part.length > 0; part = this.read()) parts.push(part);
      return join(parts);
    }

    // Writes all of it: text, or bytes.
    write(data) {
      let left = bytes(data);
      while (left.length > 0) {
        check(host(F.file_write, this.#descriptor, left, cell), "write " + this.name);
        this.count += cell32();
        left = left.subarray(cell32());
      }
    }

    // Moves, and returns the position. From "start", "current" or "end".
    seek(offset, from = "start") {
      check(host(F.file_seek, this.#descriptor, offset, ["start", "current", "end"].indexOf(from), cell), "seek in " + this.name);
      return cell64();
    }

    close() {
      const descriptor = this.#descriptor;
      this.#descriptor = 2 ** 32 - 1; // the number may be another's from now on
      if (descriptor !== this.#descriptor) check(host(F.file_close, descriptor), "close " + this.name);
    }

    // How much of it was read, for item.progress.
    get percent() {
      return this.size > 0 ? Math.min(100, (this.count / this.size) * 100) : undefined;
    }
  }

  function join(parts) {
    const all = new Uint8Array(parts.reduce((n, part) => n + part.length, 0));
    let i = 0;
    for (const part of parts) {
      all.set(part, i);
      i += part.length;
    }
    return all;
  }

  // ---- What leads out of an item ----

  class Handle {
    constructor(handle, what) {
      this.handle = handle;
      this.what = what;
    }

    close() {
      const handle = this.handle;
      this.handle = 2 ** 32 - 1;
      if (handle !== this.handle) check(host(F.handle_close, handle), this.what);
    }
  }

  // A request that is under way.
  class Pending extends Handle {
    // Sends on the body. False when the server has answered already and wants no more
    // of it.
    write(data) {
      let left = bytes(data);
      while (left.length > 0) {
        check(host(F.http_write, this.handle, left, cell), this.what);
        if (cell32() === 0) return false;
        left = left.subarray(cell32());
      }
      return true;
    }

    // Ends the body and waits for the response.
    response() {
      check(host(F.http_wait, this.handle, cell), this.what);
      return new Response(this, cell32());
    }
  }

  class Response {
    #pending;

    constructor(pending, status) {
      this.#pending = pending;
      this.status = status;
    }

    // The values of a header, joined with ", "; undefined when there is none.
    header(name) {
      const n = utf8(name);
      return find(this.#pending.what, (buf) => host(F.http_header, this.#pending.handle, n, buf, cell));
    }

    // Status, URL, Proto, Headers, Length.
    get description() {
      return JSON.parse(get(this.#pending.what, (buf) => host(F.http_response, this.#pending.handle, buf, cell)));
    }

    // Reads on in the body; what it returns is empty at the end.
    read(size = 32768) {
      const buf = new Uint8Array(size);
      check(host(F.http_read, this.#pending.handle, buf, cell), this.#pending.what);
      return buf.subarray(0, cell32());
    }

    // Reads the rest of the body, and closes.
    bytes() {
      const parts = [];
      for (let part = this.read(); part.length > 0; part = this.read()) parts.push(part);
      this.close();
      return join(parts);
    }

    text() {
      return text(this.bytes());
    }

    json() {
      return JSON.parse(this.text());
    }

    close() {
      this.#pending.close();
    }
  }

  function send(r) {
    if (typeof r === "string") r = { url: r };
    const what = "request " + excerpt(String(r.url));
    const body = r.body === undefined || r.body === null ? undefined : bytes(r.body);
    const description = {
      URL: String(r.url),
      Method: r.method || undefined,
      Headers: r.headers,
      BodyLength: body ? body.length : r.stream === true ? -1 : r.stream,
      TimeoutMs: r.timeout > 0 ? Math.ceil(r.timeout) : undefined,
      Redirects: r.redirects,
    };
    check(host(F.http_open, utf8(JSON.stringify(description)), cell), what);
    const pending = new Pending(cell32(), what);
    if (body) pending.write(body);
    return pending;
  }

  // A call that is under way.
  class Running extends Handle {
    #onProgress;

    constructor(c) {
      const what = "call " + c.capability + (c.action ? "/" + c.action : "");
      const watched = typeof c.progress === "function";
      const description = {
        Capability: c.capability,
        Action: c.action || undefined,
        Settings: c.settings ?? {},
        Source: c.source || undefined,
        Output: c.output || undefined,
        TimeoutMs: c.timeout > 0 ? Math.ceil(c.timeout) : undefined,
        Progress: watched ? "keep" : c.progress,
      };
      check(host(F.call_open, utf8(JSON.stringify(description)), cell), what);
      super(cell32(), what);
      if (watched) this.#onProgress = c.progress;
    }

    // Waits for the end. The outcome has outputs, log and exitCode.
    wait() {
      if (this.#onProgress) {
        for (;;) {
          const message = find(this.what, (buf) => host(F.call_progress, this.handle, buf, cell));
          if (message === undefined) break;
          const { Percent, Message, Step, TotalSteps } = JSON.parse(message);
          this.#onProgress({ percent: Percent, message: Message ?? "", step: Step ?? 0, total: TotalSteps ?? 0 });
        }
      }
      check(host(F.call_wait, this.handle), this.what);
      const result = JSON.parse(get(this.what, (buf) => host(F.call_result, this.handle, buf, cell)));
      // One output as text, for what JSON.parse would not give exactly.
      const output = (name) => {
        const n = utf8(name);
        return find(this.what, (buf) => host(F.call_output, this.handle, n, buf, cell));
      };
      return { outputs: result.Outputs ?? {}, log: result.Log ?? [], exitCode: Number(output("ExitCode") ?? 0), output, close: () => this.close() };
    }
  }

  function wait(list, milliseconds) {
    const handles = new Uint32Array(list.map((w) => w.handle));
    const ms = milliseconds === undefined ? -1 : Math.max(0, Math.ceil(milliseconds));
    check(host(F.handle_wait, new Uint8Array(handles.buffer), ms, cell), "wait");
    return cell32();
  }

  // ---- Items ----

  function log(level, words) {
    const show = (word) => (typeof word === "string" ? word : word instanceof Error ? String(word) : (JSON.stringify(word) ?? String(word)));
    const MOST = 65536;
    let b = utf8(words.map(show).join(" "));
    while (b.length > MOST) {
      // The host cuts longer calls, so this does first, between lines.
      const cut = b.lastIndexOf(10, MOST - 1) + 1 || MOST;
      host(F.log, level, b.subarray(0, cut));
      b = b.subarray(cut);
    }
    host(F.log, level, b);
  }

  function config(name = "") {
    const n = utf8(name);
    return find("read configuration " + name, (buf) => host(F.config, n, buf, cell));
  }

  class Item {
    #outputs = new Set();
    wrong; // what is wrong with the first output that could not be set

    constructor(work) {
      this.work = work; // as it came, without settings
      this.hash = work.WorkItemHash;
      this.capability = work.Capability;
      this.action = work.Action;
      this.operationHash = work.OperationHash;
      this.runID = work.RunID;
      this.attempt = work.AttemptNumber;
      this.sourcePath = work.SourcePath;
      this.outputPath = work.OutputPath;
    }

    // Any setting as text: what is in a JSON string, the JSON of anything else.
    // Undefined when it is absent or null.
    lookup(name) {
      const n = utf8(name);
      return find("read setting " + name, (buf) => host(F.setting, n, buf, cell));
    }

    // All settings as the server sent them.
    allSettings() {
      return JSON.parse(get("read the settings", (buf) => host(F.settings, buf, cell)));
    }

    config(name) {
      return config(name);
    }

    // How far the item has come, in percent; undefined when that is not known.
    progress(percent, message = "") {
      host(F.progress, percent ?? NaN, 0, 0, utf8(message));
    }

    // What is known of how far the item has come: percent, step, total, message.
    report({ percent, step, total, message } = {}) {
      host(F.progress, percent ?? NaN, step ?? 0, total ?? 0, utf8(message ?? ""));
    }

    // The step, of total, that begins; it counts from 1.
    step(step, total, message = "") {
      host(F.progress, total > 0 ? ((step - 1) / total) * 100 : NaN, step, total, utf8(message));
    }

    log(...words) {
      log(1, words);
    }

    debug(...words) {
      log(0, words);
    }

    warn(...words) {
      log(2, words);
    }

    // Sets an output to anything that JSON can hold; a Uint8Array becomes base64. One
    // that cannot be set fails the item.
    set(name, value) {
      let why;
      const json = typeof value === "bigint" ? String(value) : JSON.stringify(value instanceof Uint8Array ? base64(value) : value, (_, v) => {
        if (typeof v === "number" && !Number.isFinite(v)) why ??= "it is not a finite number, which JSON cannot say";
        return v;
      });
      if (json === undefined) why ??= "it is of a type that JSON cannot hold";
      if (why === undefined) {
        const errno = host(F.output, utf8(name), utf8(json));
        if (errno !== 0) why = NAMES[errno] ?? "host error " + errno;
      }
      if (why === undefined) this.#outputs.add(name);
      else this.wrong ??= `set output ${name}: ${why}`;
    }

    isSet(name) {
      return this.#outputs.has(name);
    }

    // Sets the primary output.
    result(value) {
      this.set("Result", value);
    }

    // Sets text for people.
    stdOut(value) {
      this.set("StdOut", value);
    }

    // Milliseconds until the item's deadline; undefined when it has none.
    get remaining() {
      return host(F.remaining, cell) === 0 && !cell.every((b) => b === 255) ? cell64() : undefined;
    }

    // True once the host wants the item to end and leaves it a moment to do so. Items
    // that run for long ask now and then.
    get cancelled() {
      return host(F.cancelled) === 7;
    }

    openSource() {
      if (this.sourcePath === "") throw new Error("the item has no source file: give it one (setting SourceURL, or --source)");
      return this.open(this.sourcePath);
    }

    createOutput() {
      if (this.outputPath === "") throw new Error("the item names no output file: give it one (setting OutputFilename, or --output)");
      return this.create(this.outputPath);
    }

    // All of the source, as bytes; beacon.text makes text of them.
    readSource() {
      const file = this.openSource();
      const data = file.readAll();
      file.close();
      return data;
    }

    writeOutput(data) {
      const file = this.createOutput();
      file.write(data);
      file.close();
    }

    // Opens a file of the item's directory, with flags among read, write, create,
    // truncate, append and exclusive.
    open(name, ...flags) {
      return new File(name, flags.length > 0 ? flags : ["read"]);
    }

    // Creates a file, or empties the one there is.
    create(name) {
      return new File(name, ["write", "create", "truncate"]);
    }

    // A directory, as objects with Name, Size and Directory; "." is the item's.
    list(name = ".") {
      const n = utf8(name);
      return JSON.parse(get("list " + name, (buf) => host(F.file_list, n, buf, cell)));
    }

    remove(name) {
      check(host(F.file_remove, utf8(name)), "remove " + name);
    }

    rename(from, to) {
      check(host(F.file_rename, utf8(from), utf8(to)), "rename " + from);
    }

    makeDirectory(name) {
      check(host(F.file_make_directory, utf8(name)), "make directory " + name);
    }

    // Makes a request and waits for its response, whatever its status.
    fetch(request) {
      return send(request).response();
    }

    // Starts a request, so that several can be under way.
    send(request) {
      return send(request);
    }

    hasSecret(name) {
      return host(F.secret, utf8(name)) === 0;
    }

    // Carries out a call and waits for it. A callee that did its work with a non-zero
    // exit code is no error.
    call(call) {
      return new Running(call).wait();
    }

    // Starts a call, so that several can be under way.
    begin(call) {
      return new Running(call);
    }
  }

  // ---- Random numbers ----

  // The engine's own Math.random would give the same in all items, as they begin with
  // a copy of one memory. This is Chris Doty-Humphrey's small fast counter.
  const random = new Int32Array(4);
  const reseed = () => void host(F.random, new Uint8Array(random.buffer));
  reseed();
  const draw = () => {
    const [a, b, c, n] = random;
    const sum = (a + b + n) | 0;
    random[0] = b ^ (b >>> 9);
    random[1] = (c + (c << 3)) | 0;
    random[2] = (((c << 21) | (c >>> 11)) + sum) | 0;
    random[3] = n + 1;
    return sum >>> 0;
  };
  Math.random = () => ((draw() >>> 5) * 2 ** 26 + (draw() >>> 6)) / 2 ** 53;

  // ---- Timers ----

  const now = () => (host(F.now, 1, cell), cell64() / 1e6);

  // What Node's setTimeout returns has ref and unref, and can be used as a number.
  class Timer {
    constructor(call, delay, repeat) {
      if (typeof call !== "function") throw new TypeError("a timer wants a function to call");
      this.call = call;
      this.delay = Math.max(1, Math.min(Number(delay) || 0, 2 ** 31 - 1));
      this.repeat = repeat;
      this.due = now() + this.delay;
      this.id = ++timers.last;
      timers.set(this.id, this);
    }

    ref() {
      return this;
    }

    unref() {
      return this;
    }

    hasRef() {
      return true;
    }

    [Symbol.toPrimitive]() {
      return this.id;
    }
  }

  const timers = new Map();
  timers.last = 0;
  const clear = (timer) => void timers.delete(timer instanceof Timer ? timer.id : Number(timer));
  Object.assign(globalThis, {
    setTimeout: (call, delay, ...args) => new Timer(() => call(...args), delay, false),
    setInterval: (call, delay, ...args) => new Timer(() => call(...args), delay, true),
    clearTimeout: clear,
    clearInterval: clear,
  });

  // Waits for the timer that is due first, and calls its function.
  function next() {
    let first;
    for (const timer of timers.values()) if (first === undefined || timer.due < first.due) first = timer;
    const left = first.due - now();
    if (left > 0) wait([], left);
    if (first.repeat) first.due = Math.max(first.due + first.delay, now());
    else timers.delete(first.id);
    try {
      first.call();
    } catch (err) {
      end(mistake("a timer", err) ?? err);
    }
  }

  // ---- The provider ----

  let served;
  let serving = 0;
  let broken; // what the script threw when it was read
  let valid = false; // which all items begin with

  function validate() {
    if (valid) return;
    if (broken !== undefined) throw broken;
    if (serving !== 1) {
      throw new Error(serving === 0 ? "the script serves no provider: call beacon.serve" : "the script calls beacon.serve more than once: a module is one provider");
    }
    const p = served;
    if (!p.capability) throw new Error("the provider has no capability");
    const names = Object.keys(p.actions ?? {});
    if (names.length === 0) throw new Error(`capability ${p.capability} has no actions`);
    if (p.warmUp && p.warmUp.action && !names.includes(p.warmUp.action)) {
      throw new Error(`warmUp has an action ${excerpt(p.warmUp.action)} that capability ${p.capability} does not have`);
    }
    for (const name of names) {
      const a = p.actions[name];
      if (typeof a.run !== "function") throw new Error(`action ${name} has no run`);
      for (const [setting, declared] of Object.entries(a.settings ?? {})) {
        if (!TYPES[declared.type ?? "string"]) throw new Error(`action ${name}: setting ${setting} has a type ${excerpt(String(declared.type))}: want ${Object.keys(TYPES).join(", ")}`);
        if (declared.default === undefined || declared.default === "") continue;
        try {
          parse(setting, declared, String(declared.default));
        } catch (err) {
          throw new Error(`action ${name}: the default of ${err.message}`);
        }
      }
    }
    valid = true;
  }

  function manifest() {
    const p = served;
    const example = (e) => ({ Settings: e.settings ?? {}, Source: e.source ?? "", Output: e.output ?? "", Content: e.content });
    return {
      Name: p.name ?? p.capability,
      Version: p.version ?? "",
      Capability: p.capability,
      Description: p.description ?? "",
      Actions: Object.entries(p.actions).map(([name, a]) => ({
        Name: name,
        Description: a.description ?? "",
        SettingsSchema: a.schema ?? Object.entries(a.settings ?? {}).map(([setting, s]) => ({
          Name: setting,
          DataType: TYPES[s.type ?? "string"].data,
          Required: s.required === true,
          Description: s.description ?? "",
          Default: s.default === undefined || s.default === "" ? undefined : typeof s.default === "string" ? parse(setting, s, s.default) : s.default,
          Options: s.options,
        })),
        Example: a.example && example(a.example),
      })),
      Permissions: (p.permissions ?? []).map((w) => ({ Permission: w.permission, Reason: w.reason ?? "", Optional: w.optional === true || undefined })),
      WarmUp: p.warmUp && { Action: p.warmUp.action ?? Object.keys(p.actions)[0], ...example(p.warmUp) },
    };
  }

  async function hook(name) {
    if (!served[name]) return;
    try {
      await served[name]();
    } catch (err) {
      throw mistake(name, err) ?? new Error(`${name}: ${err.message}`);
    }
  }

  // What is not an Error, or is one of those that the language throws, is a mistake
  // in the script: the log says where.
  function mistake(what, err) {
    if (err instanceof Error && ![TypeError, ReferenceError, RangeError, SyntaxError].some((type) => err instanceof type)) return undefined;
    if (err instanceof Error && err.stack) log(3, [err.stack]);
    return new Error(`panic in ${what}: ${err instanceof Error ? err.message : typeof err === "string" ? err : (JSON.stringify(err) ?? String(err))}`);
  }

  async function execute() {
    reseed();
    await hook("reseed");
    const item = new Item(JSON.parse(get("read the work item", (buf) => host(F.work_item, buf, cell))));
    const names = Object.keys(served.actions);
    if (item.action === "") item.action = names[0];
    if (!names.includes(item.action)) throw new Error(`unknown action ${excerpt(item.action)}: ${served.capability} has ${names.join(", ")}`);
    const action = served.actions[item.action];
    const settings = {};
    for (const [name, declared] of Object.entries(action.settings ?? {})) {
      const value = item.lookup(name);
      if (value !== undefined && value !== "") settings[name] = parse(name, declared, value);
      else if (declared.required) throw new Error(`setting ${name} is missing: ${declared.description ?? ""}`);
      else if (declared.default === undefined || declared.default === "") settings[name] = TYPES[declared.type ?? "string"].empty;
      else settings[name] = parse(name, declared, String(declared.default));
    }
    // Settings that the action does not declare are a mistake in the script.
    item.settings = new Proxy(settings, {
      get(all, name) {
        if (typeof name === "string" && !Object.hasOwn(all, name) && name !== "toJSON") {
          throw new ReferenceError(`setting ${name} is not among the settings of action ${item.action}: declare it, or use item.lookup`);
        }
        return all[name];
      },
    });
    try {
      await action.run(item);
    } catch (err) {
      if (!(err instanceof Exit)) throw mistake("action " + item.action, err) ?? err;
      item.set("ExitCode", err.code);
      if (!item.isSet("StdOut")) item.stdOut(err.message);
    }
    if (item.wrong !== undefined) throw new Error(item.wrong);
  }

  globalThis.beacon = Object.freeze({
    // Makes a provider that of this module. Call it once.
    serve(provider) {
      served = provider;
      serving++;
      valid = false;
    },
    // What an action throws to end with a result: with this exit code, and the message
    // as StdOut unless that is set. Servers do not try such items again.
    exit: (code, message = "") => new Exit(code, message),
    // Stands for a secret, in the value of a request's header.
    secret: (name) => `{{secret:${name}}}`,
    // Waits until one of the requests and calls can go on, and returns its place; the
    // length of the list when the time, in milliseconds, is over first.
    waitAny: wait,
    sleep: (milliseconds) => void (milliseconds > 0 && wait([], milliseconds)),
    // Milliseconds since some moment, never backwards. Date.now works as well.
    monotonic: now,
    random(size) {
      const b = new Uint8Array(size);
      for (let i = 0; i < size; i += 2 ** 20) check(host(F.random, b.subarray(i, i + 2 ** 20)), "random");
      return b;
    },
    config,
    text,
    bytes: utf8,
    // Ends the module on the spot, as a program that exits, or one that breaks down.
    quit: (code) => host(F.exit, code),
    abort: () => host(F.trap),
    HostError,
  });
  globalThis.console = Object.freeze({
    log: (...words) => log(1, words),
    info: (...words) => log(1, words),
    debug: (...words) => log(0, words),
    warn: (...words) => log(2, words),
    error: (...words) => log(3, words),
  });

  let result;
  const rejected = []; // the reasons of promises that nobody waits for

  // Ends the entry that runs, unless it has ended.
  function end(err) {
    if (result !== undefined) return;
    result = err === undefined ? 0 : 1;
    if (err !== undefined) host(F.fail, utf8(err instanceof Error ? err.message : String(err)));
  }

  async function answer(what, f) {
    result = undefined;
    rejected.length = 0;
    try {
      validate();
      await f();
      end();
    } catch (err) {
      end(err ?? String(err));
    }
  }

  return (what, value) => {
    switch (what) {
      case 0:
        answer("describe", () => check(host(F.describe, utf8(JSON.stringify(manifest()))), "describe"));
        break;
      case 1:
        answer("initialize", () => hook("initialize"));
        break;
      case 2:
        answer("execute", execute);
        break;
      case 3:
        answer("shutdown", () => hook("shutdown"));
        break;
      case 4:
        // All that was left for later is done.
        if (result === undefined && timers.size > 0) {
          next();
          return 2;
        }
        if (result === undefined) {
          const waits = (valid && served.waits) || "the script waits for a promise that nothing settles";
          if (rejected.length > 0) mistake("a promise", rejected[0]); // the log says where
          end(rejected.length === 0 ? waits : `${waits}, and a promise was rejected that nobody waits for: ${rejected[0]?.message ?? String(rejected[0])}`);
        }
        return result;
      case 5: {
        // The message is one line: it has the innermost place.
        const place = value instanceof Error && value.stack ? " " + value.stack.trim().split("\n")[0].trim() : "";
        broken = new Error(`the script cannot be read: ${value}${place}`);
        break;
      }
      case 6: // what the script left for later was done
        result = 0;
        break;
      case 7: // a promise was rejected, and nobody waits for it
        if (rejected.length < 100) rejected.push(value);
        break;
      case 8: // somebody does
        if (rejected.includes(value)) rejected.splice(rejected.indexOf(value), 1);
        break;
    }
    return 0;
  };
})();
