// wordfreq counts the words of a text, in any script, and names the most frequent.
// Files of any size go through in pieces, in bounded memory.
import { Action, Example, exit, Failure, failure, File, Item, JSON, Provider, serve, Setting, Type } from "beacon";
export { beacon_describe, beacon_execute, beacon_initialize, beacon_shutdown } from "beacon";
import { Counts, Entry } from "./counts";
import { Splitter } from "./words";

// What the functions below share while an item runs; each item begins with a fresh copy.
let counts = new Counts(1);
let least: i32 = 1;
const stop = new Set<string>();

function leaveOut(word: usize, length: i32): void {
  stop.add(String.UTF16.decodeUnsafe(word, <usize>length << 1));
}

function found(word: usize, length: i32): void {
  if (length < least || (stop.size > 0 && stop.has(String.UTF16.decodeUnsafe(word, <usize>length << 1)))) return;
  counts.add(word, length);
}

function count(item: Item): Failure | null {
  const top = item.int("Top");
  const distinct = item.int("Distinct");
  if (top < 0 || top > 10000) return exit(2, "setting Top is " + top.toString() + ": want 0 to 10000");
  if (distinct < 100 || distinct > 2000000) return exit(2, "setting Distinct is " + distinct.toString() + ": want 100 to 2000000");
  counts = new Counts(<i32>distinct);
  least = <i32>item.int("MinLength");
  const fold = item.text("Case") == "fold";
  new Splitter(fold, leaveOut).feedText(item.text("Stop"));

  const source = item.openSource();
  if (!source) return failure();
  const splitter = new Splitter(fold, found);
  const buffer = new Uint8Array(65536);
  for (;;) {
    const n = source.read(buffer);
    if (n < 0) return failure();
    if (n == 0) break;
    splitter.feed(buffer, n);
    item.progress(source.percent(), counts.total.toString() + " words");
  }
  splitter.end();
  source.close();

  const all = counts.sorted();
  if (item.outputPath != "" && !write(item, all, item.text("Format") == "csv")) return failure();
  const best = all.slice(0, <i32>top).map<string>((e) => '{"Word":' + quoted(e.word) + ',"Count":' + e.count.toString() + "}");
  item.set("Top", new JSON("[" + best.join(",") + "]"));
  item.set("Words", counts.total);
  item.set("Distinct", counts.distinct);
  item.set("Exact", counts.error == 0);
  if (counts.error > 0) item.set("Error", counts.error);
  item.result(counts.total.toString() + " words, " + counts.distinct.toString() + " different" + (counts.error > 0 ? " kept, counts may be too small by " + counts.error.toString() : ""));
  return null;
}

// Writes down all words. None has a quote, a comma or a backslash in it, and none
// begins with what a spreadsheet would take for a formula.
function write(item: Item, all: Entry[], csv: bool): bool {
  const output = item.createOutput();
  if (!output) return false;
  let text = csv ? "word,count\n" : "";
  for (let i = 0; i < all.length; i++) {
    const n = all[i].count.toString();
    text += csv ? all[i].word + "," + n + "\n" : '{"Word":' + quoted(all[i].word) + ',"Count":' + n + "}\n";
    if (text.length > 16384) {
      if (!put(output, text)) return false;
      text = "";
    }
  }
  return put(output, text) && output.close();
}

function put(output: File, text: string): bool {
  return output.write(Uint8Array.wrap(String.UTF8.encode(text)));
}

// A word as a JSON string, which has nothing to escape.
function quoted(word: string): string {
  return '"' + word + '"';
}

// Last, when all that the actions use is there.
serve(
  new Provider("wordfreq", "1.0.0", "WordFrequency").description("Counts the words of a text.").action(
    new Action("Count", count)
      .description("counts words; the source is UTF-8")
      .setting(new Setting("Top", Type.Integer).default("20").description("how many of the most frequent words to name"))
      .setting(new Setting("MinLength", Type.Integer).default("1").description("leaves out shorter words"))
      .setting(new Setting("Case", Type.String).default("fold").options(["fold", "keep"]).description("whether The and the are one word"))
      .setting(new Setting("Stop", Type.String).description("words to leave out, with spaces between"))
      .setting(new Setting("Format", Type.String).default("csv").options(["csv", "jsonl"]).description("of the output file, which has all words"))
      .setting(new Setting("Distinct", Type.Integer).default("200000").description("how many different words to keep; of more, the rarest are forgotten"))
      .example(new Example().setting("Top", "5").source("data/declaration.txt").output("words.csv")),
  ),
);
