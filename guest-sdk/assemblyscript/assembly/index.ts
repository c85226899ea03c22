// Providers for Beacon in AssemblyScript.
//
// A provider hands a Provider to serve, and its entry file exports the functions
// that a host calls:
//
//   export { beacon_describe, beacon_initialize, beacon_execute, beacon_shutdown } from "…/guest-sdk/assemblyscript/assembly";
//
// Functions that can fail return null, false or -1, and leave failure(), which an
// action may return. What is thrown ends the item as failed, and cannot be caught.

import { setRunning } from "./panic"; // first: everything may throw
import * as host from "./host";
import { fail, Failure, Filler, get, failure, ok } from "./failure";
import { Item } from "./item";
import { Provider } from "./provider";
import { excerpt, utf8 } from "./text";

export { Errno, exit, fail, Failure, failure } from "./failure";
export { File } from "./file";
export { config, DEBUG, ERROR, INFO, Item, JSON, log, monotonic, now, random, sleep, UNKNOWN, WARNING } from "./item";
export { Action, Example, Provider, Setting, Type } from "./provider";
export { Call, Callee, Message, Outcome, Pending, Request, Response, Running, secret, waitAny } from "./reach";
export { elements, member, text } from "./text";
export { abort } from "./panic";

let served: Provider | null = null;
let calls = 0;

// Makes a provider that of this module. Call it once, at the top level.
export function serve(provider: Provider): void {
  served = provider;
  calls++;
}

function answer(f: Failure | null): i32 {
  if (f == null) return 0;
  const b = utf8(f.message);
  host.fail(b.pointer, b.length);
  return 1;
}

// The provider, if there is a good one; else failure says what is wrong.
function provider(): Provider {
  if (calls != 1) {
    throw new Error(calls == 0 ? "the module serves no provider: call serve at the top level" : "the module calls serve more than once: a module is one provider");
  }
  return served!;
}

function hook(name: string, f: (() => Failure | null) | null): Failure | null {
  if (f == null) return null;
  setRunning(name);
  const bad = f();
  return bad ? fail(name + ": " + bad.message) : null;
}

export function beacon_describe(): i32 {
  setRunning("describe");
  const p = provider();
  const wrong = p.validate();
  if (wrong != "") return answer(fail(wrong));
  const manifest = p.manifest();
  return answer(ok(host.describe(manifest.pointer, manifest.length), "describe") ? null : failure());
}

export function beacon_initialize(): i32 {
  setRunning("initialize");
  const p = provider();
  const wrong = p.validate();
  return answer(wrong != "" ? fail(wrong) : hook("initialize", p.initialize_));
}

export function beacon_execute(): i32 {
  setRunning("reseed");
  const p = provider();
  const bad = hook("reseed", p.reseed_);
  return answer(bad ? bad : execute(p));
}

export function beacon_shutdown(): i32 {
  return answer(hook("shutdown", provider().shutdown_));
}

function execute(p: Provider): Failure | null {
  const json = get(new Filler((f, buf, cap, len) => host.work_item(buf, cap, len)), "read the work item");
  if (json == null) return failure();
  const item = new Item(json);
  const action = p.find(item.action);
  if (!action) {
    const names: string[] = [];
    for (let i = 0; i < p.actions.length; i++) names.push(p.actions[i].name);
    return fail("unknown action " + excerpt(item.action) + ": " + p.capability + " has " + names.join(", "));
  }
  setRunning("action " + action.name);
  let bad = item.prepare(action);
  if (bad) return bad;
  bad = action.run(item);
  if (bad && bad.exits) {
    item.set("ExitCode", bad.code);
    if (!item.stdOutIsSet) item.stdOut(bad.message);
    bad = null;
  }
  return bad == null && item.wrong != "" ? fail(item.wrong) : bad;
}
