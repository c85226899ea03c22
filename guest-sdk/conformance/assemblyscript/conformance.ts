// The conformance provider in AssemblyScript: see conformance_test.go for what it is
// to do.

import {
  Action, Call, Callee, config, Errno, Example, exit, fail, Failure, failure, File, Item, JSON, log, monotonic, now, Pending, Provider, random, Request, Response, secret,
  serve, Setting, sleep, text, Type, UNKNOWN, waitAny,
} from "../../assemblyscript/assembly";
export { beacon_describe, beacon_initialize, beacon_execute, beacon_shutdown } from "../../assemblyscript/assembly";

// @ts-ignore: decorator
@external("wasi_snapshot_preview1", "proc_exit") declare function proc_exit(code: i32): void;

let initialized = false;
let reseeded = false;
let badShutdown = false;
let count = 0;

serve(
  new Provider("conformance", "1.2.3", "Conformance")
    .description("Uses all that a host offers.")
    .permission("http GET,POST https://api.example.com/v1", 'to fetch "pages"')
    .permission("secret key", "to be let in", true)
    .action(
      new Action("Echo", echo)
        .description("Hands back its settings.")
        .setting(new Setting("Text").required().description("what to say"))
        .setting(new Setting("Count", Type.Integer).default("1").description("a whole number"))
        .setting(new Setting("Factor", Type.Number).default("1.5"))
        .setting(new Setting("Flag", Type.Boolean).default("true"))
        .setting(new Setting("Plain", Type.Boolean))
        .setting(new Setting("Choice").default("red").options(["red", "green"]))
        .example(new Example().setting("Text", "hello").source("in.txt").output("out.txt")),
    )
    .action(new Action("Item", showItem))
    .action(new Action("Report", report))
    .action(new Action("BadOutput", badOutput))
    .action(new Action("Flood", flood).setting(new Setting("Times", Type.Integer).default("10")))
    .action(new Action("Copy", copy))
    .action(new Action("Text", readText))
    .action(new Action("Files", files))
    .action(
      new Action("Fetch", fetch)
        .setting(new Setting("URL").required())
        .setting(new Setting("Method"))
        .setting(new Setting("Body"))
        .setting(new Setting("Stream", Type.Boolean))
        .setting(new Setting("NoRedirects", Type.Boolean)),
    )
    .action(new Action("Many", many).setting(new Setting("URL").required()))
    .action(
      new Action("Call", call)
        .setting(new Setting("Capability").required())
        .setting(new Setting("Watch", Type.Boolean))
        .setting(new Setting("Source"))
        .setting(new Setting("Output")),
    )
    .action(new Action("Fail", (item) => fail(item.text("Message"))).setting(new Setting("Message")))
    .action(new Action("Exit", leave).setting(new Setting("Code", Type.Integer)).setting(new Setting("Message")).setting(new Setting("Say")))
    .action(new Action("Panic", (_) => { throw new Error("boom"); }))
    .action(new Action("Undeclared", (item) => { item.text("Nothing"); return null; }))
    .action(new Action("Trap", (_) => { unreachable(); return null; }))
    .action(new Action("BadShutdown", (_) => { badShutdown = true; return null; }))
    .action(new Action("Quit", (_) => { proc_exit(3); return null; }))
    .action(new Action("Cancel", waitForCancel))
    .action(new Action("Spin", (_) => { for (;;) count++; return null; }))
    .initialize(() => { initialized = true; return null; })
    .reseed(() => { reseeded = true; return null; })
    .shutdown(() => { log("the end"); return badShutdown ? fail("no end") : null; }),
);

function echo(item: Item): Failure | null {
  item.result(item.text("Text"));
  item.set("Size", String.UTF8.byteLength(item.text("Text")));
  item.set("Count", item.int("Count"));
  item.set("Factor", item.number("Factor"));
  item.set("Flag", item.bool("Flag"));
  item.set("Plain", item.bool("Plain"));
  item.set("Choice", item.text("Choice"));
  return null;
}

function or(text: string | null): string {
  return text ? text : "";
}

function showItem(item: Item): Failure | null {
  count++;
  item.set("Hash", item.hash);
  item.set("Capability", item.capability);
  item.set("Action", item.action);
  item.set("OperationHash", item.operationHash);
  item.set("RunID", item.runID);
  item.set("Attempt", item.attempt);
  item.set("SourcePath", item.sourcePath);
  item.set("OutputPath", item.outputPath);
  const settings = item.settings();
  if (settings == null) return failure();
  item.set("Settings", new JSON(settings));
  const undeclared = item.lookup("Undeclared");
  item.set("Undeclared", or(undeclared));
  item.set("HasUndeclared", undeclared != null);
  item.set("HasNothing", item.lookup("Nothing") != null);
  item.set("Host", or(item.config("Host")));
  item.set("HasNoConfig", item.config("Nothing") != null);
  item.set("Config", new JSON(or(config(""))));
  item.set("Deadline", item.remaining() > 0);
  item.set("Cancelled", item.cancelled());
  const start = monotonic();
  item.set("Clock", now() > 1600000000000);
  item.set("Monotonic", monotonic() >= start);
  const a = new Uint8Array(16);
  const b = new Uint8Array(16);
  if (!random(a) || !random(b)) return failure();
  item.set("Random", memory.compare(a.dataStart, b.dataStart, 16) != 0);
  item.set("Initialized", initialized);
  item.set("Reseeded", reseeded);
  item.set("Items", count);
  return null;
}

function report(item: Item): Failure | null {
  item.progress(25, "a quarter");
  item.progress(UNKNOWN, "wondering");
  item.step(2, 4, "the second");
  item.debug("fine");
  item.log("first\nsecond");
  item.warn('careful: "é" 😀');
  item.log("0123456789\n".repeat(10000));
  item.set("Text", 'quote " backslash \\ line\n tab\t é € 😀 \x01');
  item.set("Replaced", "one");
  item.set("Replaced", 2);
  item.set("Int", -42);
  item.set<i64>("Big", 4503599627370497);
  item.set("Float", 0.1);
  item.set("Tiny", 1.5e-7);
  item.set("Huge", 1e300);
  item.set("Yes", true);
  item.set("No", false);
  item.setNull("Null");
  const bytes = new Uint8Array(4);
  bytes[1] = 255;
  bytes[2] = 16;
  bytes[3] = 32;
  item.set("Bytes", bytes);
  item.set<string[]>("Texts", ["a", 'b"c', ""]);
  item.set("JSON", new JSON('{"a":[1,2,{"b":null}]}'));
  item.stdOut("for people");
  item.result(7);
  return null;
}

function badOutput(item: Item): Failure | null {
  item.set("Bad", NaN);
  item.set("Good", 1);
  return null;
}

function flood(item: Item): Failure | null {
  const times = item.int("Times");
  for (let i: i64 = 0; i < times; i++) item.progress((<f64>i / <f64>times) * 100, "item " + i.toString());
  item.result(times);
  return null;
}

function copy(item: Item): Failure | null {
  const input = item.openSource();
  if (!input) return failure();
  const output = item.createOutput();
  if (!output) return failure();
  const buf = new Uint8Array(64 << 10);
  let hash: u32 = 2166136261;
  let total: i64 = 0;
  for (;;) {
    const n = input.read(buf);
    if (n < 0) return failure();
    for (let i = <i32>((1024 - (total % 1024)) % 1024); i < n; i += 1024) hash = (hash ^ buf[i]) * 16777619;
    if (!output.write(buf.subarray(0, n))) return failure();
    total += n;
    item.progress(input.percent(), "copying");
    if (n == 0) break;
  }
  item.set("Bytes", total);
  item.set("Size", input.size);
  item.set("Hash", hash);
  return output.close() ? null : failure();
}

function readText(item: Item): Failure | null {
  const data = item.readSource();
  if (!data) return failure();
  item.result(text(data));
  return item.writeOutput(data) ? null : failure();
}

function code(ok: bool): string {
  if (ok) return "ok";
  const errno = failure().errno;
  return errno == Errno.NOT_FOUND ? "not_found" : errno == Errno.EXISTS ? "exists" : errno == Errno.DENIED ? "denied" : failure().message;
}

function bytes(s: string): Uint8Array {
  return Uint8Array.wrap(String.UTF8.encode(s));
}

function files(item: Item): Failure | null {
  if (!item.makeDirectory("pages")) return failure();
  let file = item.create("pages/1.txt");
  if (!file || !file.write(bytes("hello")) || !file.close()) return failure();
  file = File.open("pages/1.txt", File.WRITE | File.APPEND);
  if (!file || !file.write(bytes(" world")) || !file.close()) return failure();
  file = item.open("pages/1.txt");
  if (!file) return failure();
  item.set("Size", file.size);
  item.set("Position", file.seek(-5, 2));
  const buf = new Uint8Array(16);
  const n = file.read(buf);
  if (n < 0) return failure();
  item.set("Text", text(buf.subarray(0, n)));
  if (!file.close() || !item.rename("pages/1.txt", "pages/2.txt")) return failure();
  item.set("List", new JSON(or(item.list("pages"))));
  item.set("Missing", code(item.open("missing.txt") != null));
  item.set("Exclusive", code(File.open("pages/2.txt", File.WRITE | File.CREATE | File.EXCLUSIVE) != null));
  item.set("Source", code(File.open(item.sourcePath, File.WRITE) != null));
  item.set("Outside", item.open("../outside") == null);
  item.set("NotEmpty", code(item.remove("pages")));
  item.set("Removed", code(item.remove("pages/2.txt")));
  item.set("RemovedDirectory", code(item.remove("pages")));
  item.set("Left", new JSON(or(item.list("."))));
  return null;
}

// What was not granted is a result here, and no failure.
function granted(): Failure {
  return failure().errno == Errno.DENIED ? exit(3, failure().message) : failure();
}

function fetch(item: Item): Failure | null {
  const request = new Request(item.text("URL")).header("X-One", "1");
  request.method = item.text("Method");
  request.noRedirects = item.bool("NoRedirects");
  request.timeout = 3600000;
  item.set("HasOther", item.hasSecret("other"));
  if (item.hasSecret("key")) request.header("Authorization", "Bearer " + secret("key"));
  const body = item.text("Body");
  let response: Response | null = null;
  if (body != "" && item.bool("Stream")) {
    request.stream = -1;
    const pending = item.send(request);
    if (!pending || !pending.write(bytes(body))) return granted();
    response = pending.response();
  } else {
    if (body != "") request.text(body);
    response = item.fetch(request);
  }
  if (!response) return granted();
  item.set("Status", response.status);
  item.set("Type", or(response.header("content-type")));
  item.set("None", or(response.header("X-None")));
  item.set("Head", new JSON(or(response.description())));
  const text = response.text();
  if (text == null) return failure();
  item.result(text);
  return null;
}

function many(item: Item): Failure | null {
  const names = ["/a", "/b", "/c"];
  const pending: Pending[] = [];
  const place: i32[] = [];
  const bodies: string[] = ["", "", ""];
  for (let i = 0; i < names.length; i++) {
    const p = item.send(new Request(item.text("URL") + names[i]));
    if (!p) return failure();
    pending.push(p);
    place.push(i);
  }
  while (pending.length > 0) {
    const next = waitAny(pending); // whichever comes first
    if (next < 0) return failure();
    const response = pending[next].response();
    const text = response ? response.text() : null;
    if (text == null) return failure();
    bodies[place[next]] = text;
    pending.splice(next, 1);
    place.splice(next, 1);
  }
  item.result(bodies.join("\n") + "\n");
  return null;
}

function call(item: Item): Failure | null {
  const c = new Call(item.text("Capability"), "Do").setting("A", "1").setting("B", 'é"');
  c.source = item.text("Source");
  c.output = item.text("Output");
  c.timeout = 3600000;
  c.progress = item.bool("Watch") ? Callee.Keep : Callee.Forward;
  const running = item.begin(c);
  if (!running) return granted();
  const seen: string[] = [];
  if (item.bool("Watch")) {
    for (let m = running.progress(); m != null; m = running.progress()) seen.push(m.message);
  }
  const outcome = running.wait();
  if (!outcome) return granted();
  item.result(or(outcome.output("Result")));
  item.set("CalleeExitCode", outcome.exitCode());
  item.set("Seen", seen);
  return null;
}

function leave(item: Item): Failure | null {
  if (item.text("Say") != "") item.stdOut(item.text("Say"));
  return exit(<i32>item.int("Code"), item.text("Message"));
}

function waitForCancel(item: Item): Failure | null {
  item.progress(0, "waiting");
  while (!item.cancelled()) sleep(1);
  return fail("gave up");
}
