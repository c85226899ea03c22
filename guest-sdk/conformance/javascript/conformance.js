// The conformance provider in JavaScript: see conformance_test.go for what it is to do.

let initialized = false;
let reseeded = false;
let badShutdown = false;
let count = 0;

beacon.serve({
  name: "conformance",
  version: "1.2.3",
  capability: "Conformance",
  description: "Uses all that a host offers.",
  permissions: [
    { permission: "http GET,POST https://api.example.com/v1", reason: 'to fetch "pages"' },
    { permission: "secret key", reason: "to be let in", optional: true },
  ],
  actions: {
    Echo: {
      description: "Hands back its settings.",
      settings: {
        Text: { required: true, description: "what to say" },
        Count: { type: "integer", default: 1, description: "a whole number" },
        Factor: { type: "number", default: 1.5 },
        Flag: { type: "boolean", default: true },
        Plain: { type: "boolean" },
        Choice: { default: "red", options: ["red", "green"] },
      },
      example: { settings: { Text: "hello" }, source: "in.txt", output: "out.txt" },
      run: echo,
    },
    Item: { run: showItem },
    Report: { run: report },
    BadOutput: {
      run(item) {
        item.set("Bad", NaN);
        item.set("Good", 1);
      },
    },
    Flood: { settings: { Times: { type: "integer", default: 10 } }, run: flood },
    Copy: { run: copy },
    Text: { run: readText },
    Files: { run: files },
    Fetch: {
      settings: { URL: { required: true }, Method: {}, Body: {}, Stream: { type: "boolean" }, NoRedirects: { type: "boolean" } },
      run: fetch,
    },
    Many: { settings: { URL: { required: true } }, run: many },
    Call: { settings: { Capability: { required: true }, Watch: { type: "boolean" }, Source: {}, Output: {} }, run: call },
    Fail: {
      settings: { Message: {} },
      run(item) {
        throw new Error(item.settings.Message);
      },
    },
    Exit: {
      settings: { Code: { type: "integer" }, Message: {}, Say: {} },
      run(item) {
        if (item.settings.Say !== "") item.stdOut(item.settings.Say);
        throw beacon.exit(item.settings.Code, item.settings.Message);
      },
    },
    Panic: {
      run() {
        throw new TypeError("boom");
      },
    },
    Undeclared: { run: (item) => item.settings.Nothing },
    Trap: { run: () => beacon.abort() },
    BadShutdown: { run: () => void (badShutdown = true) },
    Quit: { run: () => beacon.quit(3) },
    Cancel: {
      run(item) {
        item.progress(0, "waiting");
        while (!item.cancelled) beacon.sleep(1);
        throw new Error("gave up");
      },
    },
    Spin: {
      run() {
        for (;;) count++;
      },
    },
  },
  initialize: () => void (initialized = true),
  reseed: () => void (reseeded = true),
  shutdown() {
    console.log("the end");
    if (badShutdown) throw new Error("no end");
  },
});

function echo(item) {
  const { Text, Count, Factor, Flag, Plain, Choice } = item.settings;
  item.result(Text);
  item.set("Size", beacon.bytes(Text).length);
  item.set("Count", Count);
  item.set("Factor", Factor);
  item.set("Flag", Flag);
  item.set("Plain", Plain);
  item.set("Choice", Choice);
}

// Promises work as well, as long as something settles them.
async function showItem(item) {
  await Promise.resolve();
  count++;
  item.set("Hash", item.hash);
  item.set("Capability", item.capability);
  item.set("Action", item.action);
  item.set("OperationHash", item.operationHash);
  item.set("RunID", item.runID);
  item.set("Attempt", item.attempt);
  item.set("SourcePath", item.sourcePath);
  item.set("OutputPath", item.outputPath);
  item.set("Settings", item.allSettings());
  const undeclared = item.lookup("Undeclared");
  item.set("Undeclared", undeclared ?? "");
  item.set("HasUndeclared", undeclared !== undefined);
  item.set("HasNothing", item.lookup("Nothing") !== undefined);
  item.set("Host", item.config("Host"));
  item.set("HasNoConfig", item.config("Nothing") !== undefined);
  item.set("Config", JSON.parse(beacon.config()));
  item.set("Deadline", item.remaining > 0);
  item.set("Cancelled", item.cancelled);
  const start = beacon.monotonic();
  item.set("Clock", Date.now() > 1.6e12);
  item.set("Monotonic", beacon.monotonic() >= start);
  item.set("Random", String(beacon.random(16)) !== String(beacon.random(16)));
  item.set("Initialized", initialized);
  item.set("Reseeded", reseeded);
  item.set("Items", count);
}

function report(item) {
  item.progress(25, "a quarter");
  item.progress(undefined, "wondering");
  item.step(2, 4, "the second");
  item.debug("fine");
  item.log("first\nsecond");
  item.warn('careful: "é" 😀');
  item.log("0123456789\n".repeat(10_000));
  item.set("Text", 'quote " backslash \\ line\n tab\t é € 😀 \x01');
  item.set("Replaced", "one");
  item.set("Replaced", 2);
  item.set("Int", -42);
  item.set("Big", 4503599627370497n);
  item.set("Float", 0.1);
  item.set("Tiny", 1.5e-7);
  item.set("Huge", 1e300);
  item.set("Yes", true);
  item.set("No", false);
  item.set("Null", null);
  item.set("Bytes", new Uint8Array([0, 255, 16, 32]));
  item.set("Texts", ["a", 'b"c', ""]);
  item.set("JSON", { a: [1, 2, { b: null }] });
  item.stdOut("for people");
  item.result(7);
}

function flood(item) {
  const times = item.settings.Times;
  for (let i = 0; i < times; i++) item.progress((i / times) * 100, "item " + i);
  item.result(times);
}

function copy(item) {
  const input = item.openSource();
  const output = item.createOutput();
  const buf = new Uint8Array(65536);
  let hash = 2166136261;
  let total = 0;
  for (;;) {
    const part = input.read(buf);
    for (let i = (1024 - (total % 1024)) % 1024; i < part.length; i += 1024) hash = Math.imul(hash ^ part[i], 16777619);
    output.write(part);
    total += part.length;
    item.progress(input.percent, "copying");
    if (part.length === 0) break;
  }
  item.set("Bytes", total);
  item.set("Size", input.size);
  item.set("Hash", hash >>> 0);
  output.close();
}

function readText(item) {
  const data = item.readSource();
  item.result(beacon.text(data));
  item.writeOutput(data);
}

function code(f) {
  try {
    f();
    return "ok";
  } catch (err) {
    return err.code ?? err.message;
  }
}

function files(item) {
  item.makeDirectory("pages");
  let file = item.create("pages/1.txt");
  file.write("hello");
  file.close();
  file = item.open("pages/1.txt", "write", "append");
  file.write(" world");
  file.close();
  file = item.open("pages/1.txt");
  item.set("Size", file.size);
  item.set("Position", file.seek(-5, "end"));
  item.set("Text", beacon.text(file.readAll()));
  file.close();
  item.rename("pages/1.txt", "pages/2.txt");
  item.set("List", item.list("pages"));
  item.set("Missing", code(() => item.open("missing.txt")));
  item.set("Exclusive", code(() => item.open("pages/2.txt", "write", "create", "exclusive")));
  item.set("Source", code(() => item.open(item.sourcePath, "write")));
  item.set("Outside", code(() => item.open("../outside")) !== "ok");
  item.set("NotEmpty", code(() => item.remove("pages")));
  item.set("Removed", code(() => item.remove("pages/2.txt")));
  item.set("RemovedDirectory", code(() => item.remove("pages")));
  item.set("Left", item.list());
}

// What was not granted is a result here, and no failure.
function granted(f) {
  try {
    return f();
  } catch (err) {
    throw err.code === "denied" ? beacon.exit(3, err.message) : err;
  }
}

function fetch(item) {
  const { URL, Method, Body, Stream, NoRedirects } = item.settings;
  const request = { url: URL, method: Method, headers: { "X-One": "1" }, timeout: 3_600_000, redirects: NoRedirects ? 0 : undefined };
  item.set("HasOther", item.hasSecret("other"));
  if (item.hasSecret("key")) request.headers.Authorization = "Bearer " + beacon.secret("key");
  const response = granted(() => {
    if (Body === "") return item.fetch(request);
    if (!Stream) return item.fetch({ ...request, body: Body });
    const pending = item.send({ ...request, stream: true });
    pending.write(Body);
    return pending.response();
  });
  item.set("Status", response.status);
  item.set("Type", response.header("content-type"));
  item.set("None", response.header("X-None") ?? "");
  item.set("Head", response.description);
  item.result(response.text());
}

function many(item) {
  const pending = ["/a", "/b", "/c"].map((name, place) => ({ place, request: item.send(item.settings.URL + name) }));
  const bodies = [];
  while (pending.length > 0) {
    const [first] = pending.splice(beacon.waitAny(pending.map((p) => p.request)), 1); // whichever comes first
    bodies[first.place] = first.request.response().text();
  }
  item.result(bodies.join("\n") + "\n");
}

function call(item) {
  const { Capability, Watch, Source, Output } = item.settings;
  const seen = [];
  const outcome = granted(() =>
    item.call({
      capability: Capability,
      action: "Do",
      settings: { A: "1", B: 'é"' },
      source: Source,
      output: Output,
      timeout: 3_600_000,
      progress: Watch ? (p) => seen.push(p.message) : "forward",
    }),
  );
  item.result(outcome.output("Result"));
  item.set("CalleeExitCode", outcome.exitCode);
  item.set("Seen", seen);
  outcome.close();
}
