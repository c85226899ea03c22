// Providers of the Node worker, unmodified: their files, as CommonJS modules, and
// what they find around them. docs/node.md says what that is. The Go side puts
// the files behind this one: see Program.
(function (program) {
  "use strict";

  // ---- Where things are ----

  // The files stand one after another in this script. Stacks tell their lines.
  function place(line) {
    const file = program.lines.findLast(([first]) => first <= line);
    return file && `${file[1]}:${line - file[0] + 1}`;
  }

  Error.prepareStackTrace = (err, sites) => {
    const frames = [];
    for (const site of sites) {
      const at = site.getFileName() === program.name ? place(site.getLineNumber()) : undefined;
      if (at !== undefined) frames.push(`    at ${site.getFunctionName() || "<anonymous>"} (${at}:${site.getColumnNumber()})`);
    }
    return [String(err), ...frames].join("\n");
  };

  // ---- What Node has beside the language ----

  let broke = (err) => {
    throw err;
  };
  const guarded = (call) =>
    typeof call !== "function"
      ? call
      : (...args) => {
          try {
            call(...args);
          } catch (err) {
            broke(err);
          }
        };
  const { setTimeout, setInterval, clearTimeout, queueMicrotask } = globalThis;
  const later = (call, ...args) => setTimeout(guarded(call), 0, ...args);
  const soon = (call, ...args) => queueMicrotask(() => guarded(call)(...args));
  const { text, bytes } = beacon;
  class TextEncoder {
    encoding = "utf-8";
    encode(string = "") {
      return bytes(string);
    }
  }
  class TextDecoder {
    encoding = "utf-8";
    constructor(label = "utf-8") {
      if (!/^utf-?8$/i.test(label)) throw new RangeError(`TextDecoder knows utf-8 only, and not ${label}`);
    }
    decode(data = new Uint8Array()) {
      return text(data instanceof Uint8Array ? data : ArrayBuffer.isView(data) ? new Uint8Array(data.buffer, data.byteOffset, data.byteLength) : new Uint8Array(data)).replace(/^\ufeff/, "");
    }
  }
  const hrtime = (since = [0, 0]) => {
    const ns = BigInt(Math.round(beacon.monotonic() * 1e6)) - BigInt(since[0]) * 1000000000n - BigInt(since[1]);
    return [Number(ns / 1000000000n), Number(ns % 1000000000n)];
  };
  hrtime.bigint = () => BigInt(Math.round(beacon.monotonic() * 1e6));
  Object.assign(globalThis, {
    global: globalThis,
    setTimeout: (call, ...rest) => setTimeout(guarded(call), ...rest),
    setInterval: (call, ...rest) => setInterval(guarded(call), ...rest),
    setImmediate: later,
    clearImmediate: clearTimeout,
    queueMicrotask: soon,
    TextEncoder,
    TextDecoder,
    process: { argv: ["node", program.entry], arch: "wasm32", cwd: () => "/work", env: {}, hrtime, nextTick: soon, platform: "wasi", version: "", versions: {} },
  });

  // Node's words for what is not here, which a message explains.
  const NODE = new Set(["Buffer", "URL", "URLSearchParams", "fetch", "structuredClone", "AbortController", "AbortSignal", "Event", "EventTarget", "Blob", "FormData", "Headers", "Request", "Response", "ReadableStream", "WritableStream", "TransformStream", "crypto", "Worker", "MessageChannel", "Intl", "WebAssembly"]);
  function explain(err) {
    const name = err instanceof ReferenceError && /^'?([A-Za-z]+)'? is not defined/.exec(err.message)?.[1];
    return NODE.has(name) ? `${err.message}: it is of Node, and a module has the language only` : String(err?.message ?? err);
  }

  // ---- Modules ----

  const ROOT = "/provider/";
  const cache = new Map();

  function normal(path) {
    const out = [];
    for (const part of path.split("/")) {
      if (part === ".." && out.length > 0 && out.at(-1) !== "..") out.pop();
      else if (part !== "." && part !== "") out.push(part);
    }
    return out.join("/");
  }
  const folder = (path) => path.split("/").slice(0, -1).join("/");

  // What a call of require in a file means: what was found when the module was built,
  // and for names that are put together when it runs, a file that is there.
  function find(path, name) {
    const known = program.requires[path];
    if (Object.hasOwn(known, name)) return known[name];
    if (!/^\.\.?(\/|$)/.test(name)) return undefined;
    const base = normal(folder(path) + "/" + name);
    return [base, base + ".js", base + ".json", base + ".cjs", base + "/index.js", base + "/index.json"].find((file) => Object.hasOwn(program.files, file));
  }

  function load(path) {
    if (cache.has(path)) return cache.get(path).exports;
    const module = { id: ROOT + path, filename: ROOT + path, path: folder(ROOT + path), exports: {}, loaded: false, children: [], paths: [] };
    const require = (name) => {
      const file = find(path, String(name));
      if (file !== undefined) return load(file);
      if (Object.hasOwn(provided, name)) return provided[name]();
      const err = new Error(`Cannot find module '${name}'`);
      err.code = "MODULE_NOT_FOUND";
      throw err;
    };
    module.require = require;
    require.main = undefined;
    cache.set(path, module);
    try {
      program.files[path].call(module.exports, module.exports, require, module, module.filename, module.path);
    } catch (err) {
      cache.delete(path);
      throw err;
    }
    module.loaded = true;
    return module.exports;
  }

  // ---- What stands for ultravisor-beacon, and for fable around it ----

  class CapabilityProvider {
    constructor(pProviderConfig) {
      this._ProviderConfig = pProviderConfig || {};
      this.Name = "BaseProvider";
      this.Capability = "Unknown";
    }

    get actions() {
      return {};
    }

    getCapabilities() {
      return [this.Capability];
    }

    describeActions() {
      return Object.entries(this.actions).map(([Action, action]) => ({ Capability: this.Capability, Action, Description: action.Description || "" }));
    }

    execute(pAction, pWorkItem, pContext, fCallback) {
      return fCallback(new Error(`Provider "${this.Name}" has not implemented execute() for action "${pAction}".`));
    }

    initialize(fCallback) {
      return fCallback(null);
    }

    shutdown(fCallback) {
      return fCallback(null);
    }
  }

  // A capability that an application registers: actions with a Handler each.
  class CapabilityAdapter extends CapabilityProvider {
    constructor(descriptor) {
      super(descriptor.Config);
      this._Descriptor = descriptor;
      this.Name = descriptor.Name || descriptor.Capability;
      this.Capability = descriptor.Capability;
    }

    get actions() {
      return this._Descriptor.actions ?? {};
    }

    execute(pAction, pWorkItem, pContext, fCallback, fReportProgress) {
      const handler = this.actions[pAction]?.Handler;
      if (typeof handler === "function") return handler.call(this.actions[pAction], pWorkItem, pContext, fCallback, fReportProgress);
      if (typeof this._Descriptor.execute === "function") return this._Descriptor.execute(pAction, pWorkItem, pContext, fCallback, fReportProgress);
      return fCallback(new Error(`CapabilityAdapter "${this.Name}" has no Handler for action "${pAction}".`));
    }

    initialize(fCallback) {
      return typeof this._Descriptor.initialize === "function" ? this._Descriptor.initialize(fCallback) : fCallback(null);
    }

    shutdown(fCallback) {
      return typeof this._Descriptor.shutdown === "function" ? this._Descriptor.shutdown(fCallback) : fCallback(null);
    }
  }

  const registered = new Map(); // what applications have registered

  class UltravisorBeaconService {
    constructor(fable, options) {
      this.fable = fable;
      this.options = { ...options };
      this.serviceType = "UltravisorBeacon";
      this.enabled = false;
    }

    registerCapability(descriptor) {
      if (descriptor?.Capability) registered.set(descriptor.Capability, descriptor);
      else console.error("a capability without a name is not registered");
      return this;
    }

    removeCapability(name) {
      registered.delete(name);
      return this;
    }

    getCapabilityNames() {
      return [...registered.keys()];
    }

    enable(fCallback) {
      this.enabled = true;
      return fCallback?.(null, { BeaconID: "" }); // the worker has it, and tells no provider
    }

    disable(fCallback) {
      this.enabled = false;
      return fCallback?.(null);
    }

    isEnabled() {
      return this.enabled;
    }

    getThinClient() {
      return null;
    }
  }

  const worker = (name) =>
    class {
      constructor() {
        throw new Error(`${name} is a part of a worker, and this is a provider for one: beacon run has its settings`);
      }
    };
  Object.assign(UltravisorBeaconService, { CapabilityProvider, CapabilityAdapter, BeaconClient: worker("BeaconClient"), ProviderRegistry: worker("ProviderRegistry"), CapabilityManager: worker("CapabilityManager") });

  // As much of fable as an application needs to hold that service.
  class Fable {
    constructor(settings) {
      this.settings = { ...settings };
      this.services = {};
      this.log = { trace: console.debug, debug: console.debug, info: console.log, warn: console.warn, error: console.error, fatal: console.error };
      this.types = {};
    }

    addServiceType(type, service) {
      this.types[type] = service;
    }

    instantiateServiceProvider(type, options) {
      return (this.services[type] = new this.types[type](this, options, type));
    }

    addAndInstantiateServiceType(type, service, options) {
      this.addServiceType(type, service);
      return this.instantiateServiceProvider(type, options);
    }
  }

  const provided = {
    "ultravisor-beacon": () => UltravisorBeaconService,
    "ultravisor-beacon/source/Ultravisor-Beacon-CapabilityProvider.cjs": () => CapabilityProvider,
    fable: () => Fable,
  };

  // ---- The provider ----

  function provider() {
    const loaded = load(program.entry);
    const made = loaded?.__esModule && loaded.default !== undefined ? loaded.default : loaded;
    const config = JSON.parse(beacon.config());
    if (typeof made === "function") return typeof made.prototype?.execute === "function" ? new made(config) : made(config);
    if (typeof made?.execute === "function") return made;
    if (made?.Capability && Object.values(made.actions ?? {}).some((action) => typeof action?.Handler === "function")) return new CapabilityAdapter(made);
    const names = [...registered.keys()];
    if (names.length > 1) throw new Error(`${program.entry} registers ${names.length} capabilities, ${names.join(", ")}, and a module has one: give each a file of its own`);
    if (names.length === 1) return new CapabilityAdapter(registered.get(names[0]));
    throw new Error(`${program.entry} exports no provider: module.exports must be a class, a function that returns a provider, or an object with execute()`);
  }

  function schema(action) {
    const list = Array.isArray(action?.SettingsSchema) ? action.SettingsSchema : [];
    return list.map((s) => ({
      Name: String(s?.Name ?? ""),
      DataType: String(s?.DataType ?? "String"),
      Required: s?.Required === true,
      Description: String(s?.Description ?? ""),
      Default: s?.Default === undefined || s.Default === null || typeof s.Default === "object" ? undefined : s.Default,
    }));
  }

  // Fails with the message of what was thrown or called back, and logs where it was.
  function failure(err) {
    if (err instanceof Error && err.stack) console.error(String(err.stack).trimEnd());
    return new Error(err instanceof Error ? explain(err) : typeof err === "string" ? err : String(err?.message ?? JSON.stringify(err) ?? err));
  }

  // Calls a function that takes a callback, or returns a promise, or both.
  function called(begin, each) {
    return new Promise((done, fail) => {
      let open = true;
      const close = (err, value) => {
        if (!open) {
          if (err) console.warn(`after the provider had called back: ${explain(err)}`);
          else console.warn("the provider called back more than once: the first time counts");
          return;
        }
        open = false;
        if (err) {
          fail(failure(err));
          return;
        }
        try {
          each?.(value);
          done();
        } catch (wrong) {
          fail(failure(wrong));
        }
      };
      broke = (err) => close(err ?? new Error(String(err)));
      try {
        const promise = begin((err, value) => void close(err, value));
        if (typeof promise?.then === "function") promise.then((value) => open && value !== undefined && value !== null && close(null, value), broke);
      } catch (err) {
        broke(err);
      }
    });
  }

  function serve(p) {
    if (typeof p?.then === "function") throw new Error("the provider is a promise, and must be there at once");
    if (!p?.Capability) throw new Error("the provider has no Capability");
    if (typeof p.execute !== "function") throw new Error("the provider has no execute()");
    const actions = p.actions ?? {};
    const hook = (name) => typeof p[name] === "function" && { [name]: () => called((callback) => {
      const promise = p[name](callback);
      // One that takes no callback has ended when its promise has.
      return p[name].length === 0 && typeof promise?.then === "function" ? promise.then(() => true) : promise;
    }) };
    beacon.serve({
      name: String(p.Name || p.Capability),
      version: program.version,
      capability: String(p.Capability),
      description: program.description,
      waits: "the provider never called its callback, and nothing is left that could",
      ...hook("initialize"),
      ...hook("shutdown"),
      actions: Object.fromEntries(Object.keys(actions).map((name) => [name, {
        description: String(actions[name]?.Description ?? ""),
        schema: schema(actions[name]),
        run: (item) => execute(p, name, item),
      }])),
    });
  }

  function execute(p, action, item) {
    const settings = item.allSettings();
    if (item.sourcePath) settings._ResolvedSourcePath = item.sourcePath;
    if (item.outputPath) settings._ResolvedOutputPath = item.outputPath;
    if (typeof settings.Command === "string") {
      settings.Command = settings.Command.replaceAll("{OutputPath}", () => item.outputPath || "{OutputPath}").replaceAll("{SourcePath}", () => item.sourcePath || "{SourcePath}");
    }
    const work = { ...item.work, Action: action, Settings: settings };
    delete work.SourcePath;
    delete work.OutputPath;
    const log = (lines) => {
      if (Array.isArray(lines)) for (const line of lines) item.log(line);
    };
    const progress = (data) => {
      if (typeof data !== "object" || data === null) return;
      const number = (value) => (value === undefined || value === null || !Number.isFinite(Number(value)) ? undefined : Number(value));
      item.report({ percent: number(data.Percent), step: number(data.Step), total: number(data.TotalSteps), message: data.Message ?? "" });
      log(data.Log);
    };
    const context = { StagingPath: "/work", Item: item };
    return called(
      (callback) => p.execute(action, work, context, callback, progress),
      (outcome) => {
        for (const [name, value] of Object.entries(outcome?.Outputs ?? {})) if (value !== undefined && typeof value !== "function") item.set(name, value);
        log(outcome?.Log);
      },
    );
  }

  try {
    serve(provider());
  } catch (err) {
    const why = new Error(explain(err));
    why.stack = String(err?.stack ?? "").split("\n").filter((line) => line.startsWith("    at ")).join("\n");
    throw why;
  }
});
