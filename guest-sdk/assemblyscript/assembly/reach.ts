// What leads out of an item, by permission: requests, and calls of other
// capabilities.

import * as host from "./host";
import { cell, cell32, Filler, find, get, ok } from "./failure";
import { Bytes, decodeText, excerpt, member, parseNumber, utf8 } from "./text";

// Stands for a secret that the operator granted, in the value of a header. The host
// puts it in its place, for the hosts that it is meant for; a provider never sees it.
export function secret(name: string): string {
  return "{{secret:" + name + "}}";
}

// An HTTP request. The operator decides which are permitted.
export class Request {
  method: string = "GET";
  private headers: Map<string, string> = new Map();
  body: Uint8Array | null = null;
  // Instead of body: the number of bytes that Pending.write is going to send, -1 when
  // that is not known.
  stream: i64 = 0;
  // Bounds the exchange, reading of the response included, in milliseconds; 0 is no
  // bound but the item's.
  timeout: i64 = 0;
  // Makes a redirect a response like any other.
  noRedirects: bool = false;

  constructor(readonly url: string) {}

  // Sets a header; its value may hold secret.
  header(name: string, value: string): Request {
    this.headers.set(name, value);
    return this;
  }

  // Sets a body that is text.
  text(body: string): Request {
    this.body = Uint8Array.wrap(String.UTF8.encode(body));
    return this;
  }

  json(): Bytes {
    const b = new Bytes().text("{").member("URL", this.url);
    if (this.method != "") b.member("Method", this.method);
    b.name("Headers").text("{");
    const names = this.headers.keys();
    for (let i = 0; i < names.length; i++) b.member(names[i], this.headers.get(names[i]));
    b.text("}");
    const body = this.body;
    const length: i64 = body ? body.length : this.stream;
    if (body || length != 0) b.name("BodyLength").text(length.toString());
    if (this.timeout > 0) b.name("TimeoutMs").text(this.timeout.toString());
    if (this.noRedirects) b.name("Redirects").text("0");
    return b.text("}");
  }
}

// A request or call that is under way. The host ends what is left open.
export class Handle {
  constructor(
    public handle: u32,
    readonly what: string,
  ) {}

  close(): bool {
    const handle = this.handle;
    this.handle = u32.MAX_VALUE; // the number may be another's from now on
    return handle == u32.MAX_VALUE || ok(host.handle_close(handle), this.what);
  }
}

// Waits until one of them can go on, and returns its place; the length of the list
// when the time, in milliseconds, is over first, and -1 for a failure. A negative time
// has no end but the item's.
export function waitAny<T extends Handle>(list: T[], milliseconds: i64 = -1): i32 {
  const handles = new Uint32Array(list.length);
  for (let i = 0; i < list.length; i++) handles[i] = list[i].handle;
  return ok(host.handle_wait(handles.dataStart, list.length * 4, milliseconds, cell()), "wait") ? <i32>cell32() : -1;
}

// A request that is under way.
export class Pending extends Handle {
  static start(request: Request): Pending | null {
    const what = "request " + excerpt(request.url);
    const json = request.json();
    if (!ok(host.http_open(json.pointer, json.length, cell()), what)) return null;
    const pending = new Pending(cell32(), what);
    const body = request.body;
    return body && !pending.write(body) ? null : pending;
  }

  // Sends on the body. What the server does not want any more, as it has answered, is
  // dropped.
  write(data: Uint8Array): bool {
    let p = data.dataStart;
    let left = data.length;
    while (left > 0) {
      if (!ok(host.http_write(this.handle, p, left, cell()), this.what)) return false;
      const n = <i32>cell32();
      if (n == 0) return true;
      p += n;
      left -= n;
    }
    return true;
  }

  // Ends the body and waits for the response; null for a failure.
  response(): Response | null {
    return ok(host.http_wait(this.handle, cell()), this.what) ? new Response(this, cell32()) : null;
  }
}

// The answer to a request.
export class Response {
  constructor(
    private pending: Pending,
    readonly status: u32,
  ) {}

  // The values of a header, joined with ", "; null when there is none.
  header(name: string): string | null {
    const n = utf8(name);
    const filler = new Filler((f, buf, cap, len) => host.http_header(f.handle, f.name, f.nameLen, buf, cap, len), this.pending.handle, n.pointer, n.length);
    return find(filler, this.pending.what);
  }

  // The head of the response as JSON: Status, URL, Proto, Headers, Length.
  description(): string | null {
    return get(new Filler((f, buf, cap, len) => host.http_response(f.handle, buf, cap, len), this.pending.handle), this.pending.what);
  }

  // How many bytes of the body were read into the array: 0 at the end, -1 for a failure.
  read(data: Uint8Array): i32 {
    return ok(host.http_read(this.pending.handle, data.dataStart, data.length, cell()), this.pending.what) ? <i32>cell32() : -1;
  }

  // Reads the rest of the body, as text; null for a failure.
  text(): string | null {
    const all = new Bytes();
    const part = new Uint8Array(32 << 10);
    for (;;) {
      const n = this.read(part);
      if (n < 0) return null;
      if (n == 0) break;
      all.add(part.dataStart, n);
    }
    return this.close() ? decodeText(all.pointer, all.length) : null;
  }

  close(): bool {
    return this.pending.close();
  }
}

// What becomes of a callee's progress: nothing, or it becomes the item's, or it is for
// Running.progress.
export enum Callee {
  Drop,
  Forward,
  Keep,
}

// Asks another capability of the beacon for an action. The operator decides which
// calls are permitted.
export class Call {
  private names: string[] = [];
  private values: string[] = []; // as JSON
  // A file of the item's directory that the callee gets a copy of, and where the
  // callee's output goes.
  source: string = "";
  output: string = "";
  // In milliseconds; 0 is no bound but the item's.
  timeout: i64 = 0;
  progress: Callee = Callee.Drop;

  // Without an action it is the capability's first.
  constructor(
    readonly capability: string,
    readonly action: string = "",
  ) {}

  // Adds a setting that is text.
  setting(name: string, value: string): Call {
    const b = new Bytes().quoted(value);
    return this.json(name, decodeText(b.pointer, b.length));
  }

  // Adds a setting that is JSON.
  json(name: string, value: string): Call {
    this.names.push(name);
    this.values.push(value);
    return this;
  }

  name(): string {
    return this.action == "" ? "call " + this.capability : "call " + this.capability + "/" + this.action;
  }

  request(): Bytes {
    const b = new Bytes().text("{").member("Capability", this.capability);
    if (this.action != "") b.member("Action", this.action);
    b.name("Settings").text("{");
    for (let i = 0; i < this.names.length; i++) b.name(this.names[i]).text(this.values[i]);
    b.text("}");
    if (this.source != "") b.member("Source", this.source);
    if (this.output != "") b.member("Output", this.output);
    if (this.timeout > 0) b.name("TimeoutMs").text(this.timeout.toString());
    if (this.progress != Callee.Drop) b.member("Progress", this.progress == Callee.Forward ? "forward" : "keep");
    return b.text("}");
  }
}

// What a callee said about how far it has come: NaN, 0 and "" where it did not say.
export class Message {
  constructor(
    readonly percent: f64,
    readonly message: string,
    readonly step: i32,
    readonly total: i32,
  ) {}
}

function part(json: string, name: string): string {
  const text = member(json, name);
  return text ? text : "";
}

// A call that is under way.
export class Running extends Handle {
  static start(call: Call): Running | null {
    const request = call.request();
    return ok(host.call_open(request.pointer, request.length, cell()), call.name()) ? new Running(cell32(), call.name()) : null;
  }

  // Waits for the next kept message; null when there is no more.
  progress(): Message | null {
    const json = find(new Filler((f, buf, cap, len) => host.call_progress(f.handle, buf, cap, len), this.handle), this.what);
    if (json == null) return null;
    return new Message(
      parseNumber(part(json, "Percent")), part(json, "Message"),
      <i32>parseNumber(part(json, "Step")), <i32>parseNumber(part(json, "TotalSteps")),
    );
  }

  // Waits for the end; null for a failure.
  wait(): Outcome | null {
    return ok(host.call_wait(this.handle), this.what) ? new Outcome(this) : null;
  }
}

// What became of a call.
export class Outcome {
  constructor(private running: Running) {}

  // One output as text: what is in a JSON string, the JSON of anything else. Null when
  // it is absent or null.
  output(name: string): string | null {
    const n = utf8(name);
    const filler = new Filler((f, buf, cap, len) => host.call_output(f.handle, f.name, f.nameLen, buf, cap, len), this.running.handle, n.pointer, n.length);
    return find(filler, this.running.what);
  }

  // The callee's: 0 is success.
  exitCode(): i32 {
    const code = this.output("ExitCode");
    return code == null ? 0 : <i32>parseNumber(code);
  }

  // Outputs and Log as a JSON object; null for a failure.
  json(): string | null {
    return get(new Filler((f, buf, cap, len) => host.call_result(f.handle, buf, cap, len), this.running.handle), this.running.what);
  }

  close(): bool {
    return this.running.close();
  }
}
