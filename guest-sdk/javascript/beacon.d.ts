// What scripts find as `beacon`, for editors: README.md says more. A test keeps the
// names here those of beacon.js.

/** Bytes, or text that becomes UTF-8. */
type Data = string | Uint8Array | ArrayBuffer;

/** Declares one parameter of an action. */
interface Setting {
  /** The default is string. */
  type?: "string" | "number" | "integer" | "boolean";
  required?: boolean;
  /** The value of an absent setting. */
  default?: string | number | boolean;
  description?: string;
  /** The only values allowed. */
  options?: string[];
}

interface Example {
  settings?: Record<string, string>;
  /** Names of files, relative to the provider's folder. */
  source?: string;
  output?: string;
}

interface Action {
  description?: string;
  /** Checked before the action runs. */
  settings?: Record<string, Setting>;
  example?: Example;
  run(item: Item): unknown;
}

interface Provider {
  name?: string;
  version?: string;
  /** The name under which servers dispatch work to it. */
  capability: string;
  description?: string;
  /** The first is the default. */
  actions: Record<string, Action>;
  /** The operator decides, and may grant less. */
  permissions?: { permission: string; reason?: string; optional?: boolean }[];
  /** Runs once, before there is an item; every item begins with what it leaves. */
  initialize?(): unknown;
  /** Runs before each item, to make anew what was made of random numbers. */
  reseed?(): unknown;
  /** Runs after each item that ended well. */
  shutdown?(): unknown;
  /** An item that is carried out once as part of the initialisation. */
  warmUp?: Example & { action?: string; content?: string };
}

/** One piece of work. Text is "" where there is none. */
interface Item {
  /** The work item as the host gives it, without settings. */
  readonly work: Record<string, unknown>;
  readonly hash: string;
  readonly capability: string;
  readonly action: string;
  readonly operationHash: string;
  readonly runID: string;
  /** Counts from 1; 0 when the server does not count. */
  readonly attempt: number;
  readonly sourcePath: string;
  readonly outputPath: string;
  /** Those that the action declares, by their types, defaults filled in. */
  readonly settings: Record<string, any>;
  /** Any setting as text: what is in a JSON string, the JSON of anything else. */
  lookup(name: string): string | undefined;
  /** All settings as the server sent them. */
  allSettings(): Record<string, any>;
  /** A value that the operator configured, as text; all of it without a name. */
  config(name?: string): string | undefined;

  /** How far the item has come, in percent; undefined when that is not known. */
  progress(percent: number | undefined, message?: string): void;
  /** What is known of how far the item has come. */
  report(progress: { percent?: number; step?: number; total?: number; message?: string }): void;
  /** The step, of total, that begins; it counts from 1. */
  step(step: number, total: number, message?: string): void;
  log(...words: unknown[]): void;
  debug(...words: unknown[]): void;
  warn(...words: unknown[]): void;

  /** Sets an output to anything that JSON can hold; bytes become base64. */
  set(name: string, value: unknown): void;
  isSet(name: string): boolean;
  /** Sets the primary output. */
  result(value: unknown): void;
  /** Sets text for people. */
  stdOut(value: string): void;

  /** Milliseconds until the item's deadline; undefined when it has none. */
  readonly remaining: number | undefined;
  /** True once the host wants the item to end. Items that run for long ask now and then. */
  readonly cancelled: boolean;

  openSource(): File;
  createOutput(): File;
  readSource(): Uint8Array;
  writeOutput(data: Data): void;
  /** Opens a file of the item's directory; to read, without flags. */
  open(name: string, ...flags: ("read" | "write" | "create" | "truncate" | "append" | "exclusive")[]): File;
  create(name: string): File;
  list(name?: string): { Name: string; Size: number; Directory: boolean }[];
  remove(name: string): void;
  rename(from: string, to: string): void;
  makeDirectory(name: string): void;

  /** Makes a request and waits for its response, whatever its status. */
  fetch(request: string | Request): Response;
  /** Starts a request, so that several can be under way. */
  send(request: string | Request): Pending;
  hasSecret(name: string): boolean;
  /** Carries out a call and waits for it. */
  call(call: Call): Outcome;
  /** Starts a call, so that several can be under way. */
  begin(call: Call): Running;
}

interface File {
  readonly name: string;
  /** In bytes, when it was opened. */
  readonly size: number;
  /** Bytes read and written. */
  readonly count: number;
  /** How much of it was read, for progress. */
  readonly percent: number | undefined;
  /** Reads on, at most so many bytes, or into an array. What it returns is empty at the end. */
  read(into?: number | Uint8Array): Uint8Array;
  readAll(): Uint8Array;
  /** Writes all of it. */
  write(data: Data): void;
  /** Moves, and returns the position. */
  seek(offset: number, from?: "start" | "current" | "end"): number;
  close(): void;
}

interface Request {
  url: string;
  method?: string;
  /** Values may hold beacon.secret(name). */
  headers?: Record<string, string | string[]>;
  body?: Data;
  /** For a body that is written by Pending.write: its length, or true when that is not known. */
  stream?: number | true;
  /** Milliseconds. */
  timeout?: number;
  /** How many are followed, at most 3; 0 hands on the first response. */
  redirects?: number;
}

interface Waitable {
  close(): void;
}

interface Pending extends Waitable {
  /** False when the server has answered already and wants no more. */
  write(data: Data): boolean;
  response(): Response;
}

interface Response {
  readonly status: number;
  /** Status, URL, Proto, Headers, Length. */
  readonly description: Record<string, any>;
  /** The values of a header, joined with ", ". */
  header(name: string): string | undefined;
  /** Reads on in the body; what it returns is empty at the end. */
  read(size?: number): Uint8Array;
  bytes(): Uint8Array;
  text(): string;
  json(): any;
  close(): void;
}

interface Call {
  capability: string;
  /** Without one, the capability's first. */
  action?: string;
  settings?: Record<string, unknown>;
  /** A file of the item's directory, of which the callee gets a copy. */
  source?: string;
  /** The name under which the callee's output file comes to the item's directory. */
  output?: string;
  /** Milliseconds. */
  timeout?: number;
  /** What becomes of the callee's progress: it becomes the item's, or a function gets it. */
  progress?: "drop" | "forward" | ((p: { percent?: number; message: string; step: number; total: number }) => void);
}

interface Running extends Waitable {
  wait(): Outcome;
}

interface Outcome {
  readonly outputs: Record<string, any>;
  readonly log: string[];
  readonly exitCode: number;
  /** One output as text. */
  output(name: string): string | undefined;
  close(): void;
}

declare const beacon: {
  /** Makes a provider that of this module. Call it once. */
  serve(provider: Provider): void;
  /** What an action throws to end with a result: with this exit code, and the message as StdOut. */
  exit(code: number, message?: string): Error;
  /** Stands for a secret, in the value of a request's header. */
  secret(name: string): string;
  /** Waits until one of them can go on, and returns its place; the length of the list when the milliseconds are over first. */
  waitAny(list: Waitable[], milliseconds?: number): number;
  sleep(milliseconds: number): void;
  /** Milliseconds since some moment, never backwards. */
  monotonic(): number;
  /** Bytes that nobody can foretell. */
  random(size: number): Uint8Array;
  config(name?: string): string | undefined;
  /** Text of UTF-8. */
  text(bytes: Uint8Array): string;
  /** UTF-8 of text. */
  bytes(text: string): Uint8Array;
  /** Ends the module on the spot, as a program that exits, or one that breaks down. */
  quit(code: number): never;
  abort(): never;
  /** What the host refused; its code is a word such as "denied". */
  HostError: { new (...args: any[]): Error & { code: string }; prototype: Error & { code: string } };
};

/** Writes to the item's log. */
interface Timer {
  ref(): this;
  unref(): this;
  hasRef(): boolean;
}

/** Timers run while their item does. */
declare function setTimeout(call: (...args: any[]) => void, milliseconds?: number, ...args: any[]): Timer;
declare function setInterval(call: (...args: any[]) => void, milliseconds?: number, ...args: any[]): Timer;
declare function clearTimeout(timer?: Timer | number): void;
declare function clearInterval(timer?: Timer | number): void;

declare const console: {
  log(...words: unknown[]): void;
  info(...words: unknown[]): void;
  debug(...words: unknown[]): void;
  warn(...words: unknown[]): void;
  error(...words: unknown[]): void;
};
