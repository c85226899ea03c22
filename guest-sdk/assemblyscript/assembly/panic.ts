import * as host from "./host";
import { utf8 } from "./text";

let running: string = "";

// Says what runs, for the message of a throw.
export function setRunning(what: string): void {
  running = what;
}

// What a throw comes to: the item fails with the message, and its log says where.
// The compiler is told so by --use abort=….
export function abort(message: string | null, file: string | null, line: u32, column: u32): void {
  const place = utf8("panic at " + (file ? file : "?") + ":" + line.toString() + ":" + column.toString());
  host.log(3, place.pointer, place.length);
  const text = utf8("panic in " + running + ": " + (message ? message : "a value that has no text"));
  host.fail(text.pointer, text.length);
  unreachable();
}
