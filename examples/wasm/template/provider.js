// template renders text templates with data: Mustache, with a choice of what values are
// escaped for. A file of data with a record a line is rendered once for each.

beacon.serve({
  name: "template",
  version: "1.0.0",
  capability: "Template",
  description: "Renders text templates with data.",
  actions: {
    Render: {
      description: "renders a template once",
      settings: {
        Template: { description: "the template; else the source is one" },
        Data: { description: "the data as JSON; else the source has it" },
        ...common(),
      },
      example: { settings: { Data: '{"Name": "world", "Items": ["one", "two"]}' }, source: "data/letter.txt", output: "letter.out.txt" },
      run: render,
    },
    Merge: {
      description: "renders a template for each line of the source, which is a JSON object",
      settings: { Template: { required: true, description: "the template" }, ...common() },
      run: merge,
    },
  },
});

function common() {
  return {
    Escape: { default: "html", options: ["html", "json", "csv", "url", "none"], description: "what values are escaped for" },
    Partials: { description: "templates by name, as a JSON object, for {{>name}}" },
    Missing: { default: "empty", options: ["empty", "error"], description: "what a value that is not there is" },
  };
}

const wrong = (message) => beacon.exit(2, message);

function render(item) {
  const { Template, Data } = item.settings;
  if (Template === "" && Data === "") throw wrong("set Template, or Data, or both: the source is the other one");
  const template = Template === "" ? beacon.text(item.readSource()) : Template;
  const json = Data === "" ? beacon.text(item.readSource()) : Data;
  const out = renderer(item, template)(parse(json, "the data"));
  item.set("Characters", [...out].length);
  if (item.outputPath === "") return item.result(out);
  item.writeOutput(out);
  item.result(`${[...out].length} characters`);
}

function merge(item) {
  const write = renderer(item, item.settings.Template);
  const source = item.openSource();
  const output = item.createOutput();
  let records = 0;
  for (const { line, number } of lines(source)) {
    if (line.trim() === "") continue;
    output.write(write(parse(line, `line ${number} of the source`)));
    records++;
    if (records % 1000 === 0) item.progress(source.percent, `${records} records`);
  }
  output.close();
  item.set("Records", records);
  item.result(`${records} records`);
}

function parse(json, what) {
  try {
    return JSON.parse(json);
  } catch (err) {
    throw wrong(`${what} is not JSON: ${err.message}`);
  }
}

// The lines of a file, of any size, with their numbers.
function* lines(file) {
  const longest = 2 ** 23;
  let number = 0;
  let parts = [];
  let size = 0;
  const join = () => {
    const all = new Uint8Array(size);
    let at = 0;
    for (const part of parts) {
      all.set(part, at);
      at += part.length;
    }
    parts = [];
    size = 0;
    number++;
    return { line: beacon.text(all), number };
  };
  for (let piece = file.read(); piece.length > 0; piece = file.read()) {
    for (;;) {
      const end = piece.indexOf(10);
      const part = end < 0 ? piece : piece.subarray(0, end);
      parts.push(part);
      size += part.length;
      if (size > longest) throw wrong(`line ${number + 1} of the source has more than ${longest} bytes`);
      if (end < 0) break;
      yield join();
      piece = piece.subarray(end + 1);
    }
  }
  if (size > 0) yield join();
}

// ---- Escaping ----

const ENTITIES = { "&": "&amp;", "<": "&lt;", ">": "&gt;", '"': "&quot;", "'": "&#39;" };

const ESCAPES = {
  html: (text) => text.replace(/[&<>"']/g, (c) => ENTITIES[c]),
  // For the inside of a JSON string.
  json: (text) => JSON.stringify(text).slice(1, -1),
  // A field of RFC 4180, that spreadsheets take for no formula.
  csv: (text) => {
    const safe = /^[=+\-@\t\r]/.test(text) && !/^[+-]?[\d.]+$/.test(text) ? "'" + text : text;
    return /[",\r\n]/.test(safe) ? `"${safe.replaceAll('"', '""')}"` : safe;
  },
  url: encodeURIComponent,
  none: (text) => text,
};

// ---- Mustache ----

// A function that renders a template with data, by the settings of an item.
function renderer(item, template) {
  const { Escape, Partials, Missing } = item.settings;
  const sources = Partials === "" ? {} : parse(Partials, "setting Partials");
  const partials = new Map();
  const compiled = compile(template, "the template");
  const render = {
    escape: ESCAPES[Escape],
    strict: Missing === "error",
    depth: 0,
    partial(name, indent) {
      if (typeof sources[name] !== "string" || !Object.hasOwn(sources, name)) throw wrong(`there is no partial ${JSON.stringify(name)}: set Partials`);
      const key = indent + ">" + name;
      if (!partials.has(key)) partials.set(key, compile(sources[name].replace(/^(?=[^\n])/gm, indent), `partial ${name}`));
      return partials.get(key);
    },
  };
  return (data) => {
    const out = [];
    write(compiled, [data], render, out);
    return out.join("");
  };
}

// Compiles a template to a list of nodes: text, or objects with a kind.
function compile(template, what) {
  const root = { nodes: [] };
  const open = [root];
  let [left, right] = ["{{", "}}"];
  let at = 0;
  const place = (i) => `${what}, line ${template.slice(0, i).split("\n").length}`;
  const add = (node) => node !== "" && open.at(-1).nodes.push(node);
  while (at < template.length) {
    const start = template.indexOf(left, at);
    if (start < 0) break;
    // {{{raw}}} and {{=<% %>=}} end in their own way.
    const sign = template[start + left.length];
    const raw = sign === "{" && left === "{{";
    const close = raw ? "}" + right : sign === "=" ? "=" + right : right;
    const end = template.indexOf(close, start + left.length + 1);
    if (end < 0) throw wrong(`${place(start)}: ${left} is not closed`);
    const kind = "#^/!>&={".includes(sign) && sign !== undefined && (sign !== "{" || raw) ? sign : "";
    const name = template.slice(start + left.length + kind.length, end).trim();
    let before = template.slice(at, start);
    let next = end + close.length;
    // Tags that show nothing take their line with them, if they are alone on it.
    let indent = "";
    if ("#^/!>=".includes(kind) && kind !== "") {
      const head = template.slice(template.lastIndexOf("\n", start - 1) + 1, start);
      const rest = /^[ \t]*(\r?\n|$)/.exec(template.slice(next));
      if (/^[ \t]*$/.test(head) && rest && at <= start - head.length) {
        before = before.slice(0, before.length - head.length);
        next += rest[0].length;
        indent = head;
      }
    }
    add(before);
    at = next;
    if (kind !== "!" && kind !== "=" && !/^(\.|[^\s{}#^/]+)$/.test(name)) throw wrong(`${place(start)}: ${JSON.stringify(name)} is no name`);
    switch (kind) {
      case "!":
        break;
      case "=": {
        const [l, r, ...more] = name.split(/\s+/);
        if (!l || !r || more.length > 0) throw wrong(`${place(start)}: want {{=<% %>=}}, with two other delimiters`);
        [left, right] = [l, r];
        break;
      }
      case "#":
      case "^": {
        const node = { kind, name, path: path(name), nodes: [], start };
        add(node);
        open.push(node);
        if (open.length > 100) throw wrong(`${place(start)}: sections are nested too deeply`);
        break;
      }
      case "/": {
        const node = open.pop();
        if (node === root || node.name !== name) {
          throw wrong(`${place(start)}: section ${name} is closed, ${node === root ? "and was not opened" : `and ${node.name} is open`}`);
        }
        break;
      }
      default:
        add({ kind: kind === "{" ? "&" : kind, name, path: path(name), indent, place: place(start) });
    }
  }
  add(template.slice(at));
  if (open.length > 1) throw wrong(`${place(open.at(-1).start)}: section ${open.at(-1).name} is not closed`);
  return root.nodes;
}

const path = (name) => (name === "." ? [] : name.split("."));

// The value of a name: its first part is looked for from the innermost data outwards.
function lookup(names, stack) {
  if (names.length === 0) return stack.at(-1);
  const has = (data, name) => data !== null && typeof data === "object" && Object.hasOwn(data, name);
  for (let i = stack.length - 1; i >= 0; i--) {
    if (!has(stack[i], names[0])) continue;
    let value = stack[i];
    for (const name of names) {
      if (!has(value, name)) return undefined;
      value = value[name];
    }
    return value;
  }
  return undefined;
}

const isTrue = (value) => !(value === undefined || value === null || value === false || value === "" || value === 0 || (Array.isArray(value) && value.length === 0));

function write(nodes, stack, render, out) {
  for (const node of nodes) {
    if (typeof node === "string") {
      out.push(node);
      continue;
    }
    if (node.kind === ">") {
      // Partials may contain themselves, as long as the data lets them end.
      if (++render.depth > 100) throw wrong(`${node.place}: partials are nested too deeply`);
      write(render.partial(node.name, node.indent), stack, render, out);
      render.depth--;
      continue;
    }
    const value = lookup(node.path, stack);
    switch (node.kind) {
      case "#":
        for (const element of Array.isArray(value) ? value : isTrue(value) ? [value] : []) write(node.nodes, [...stack, element], render, out);
        break;
      case "^":
        if (!isTrue(value)) write(node.nodes, stack, render, out);
        break;
      default: {
        if (value === undefined && render.strict) throw wrong(`${node.place}: there is no value ${node.name}`);
        const text = value === undefined || value === null ? "" : typeof value === "object" ? JSON.stringify(value) : String(value);
        out.push(node.kind === "&" ? text : render.escape(text));
      }
    }
  }
}
