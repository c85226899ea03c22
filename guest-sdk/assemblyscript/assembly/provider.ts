import { Failure } from "./failure";
import { Item } from "./item";
import { Bytes, excerpt, isFalse, isTrue, isWhole, parseNumber } from "./text";

// What a setting holds. Ultravisor knows integers as numbers.
export enum Type {
  String,
  Number,
  Integer,
  Boolean,
}

// Declares one parameter of an action.
export class Setting {
  description_: string = "";
  required_: bool = false;
  default_: string = "";
  options_: string[] = [];

  constructor(
    readonly name: string,
    readonly type: Type = Type.String,
  ) {}

  description(text: string): Setting {
    this.description_ = text;
    return this;
  }

  // The setting must be given; "" counts as not given.
  required(): Setting {
    this.required_ = true;
    return this;
  }

  // The value of an absent setting, in the form it would be given in: "4", "true".
  default(value: string): Setting {
    this.default_ = value;
    return this;
  }

  // The only values allowed.
  options(values: string[]): Setting {
    this.options_ = values;
    return this;
  }

  // What is wrong with a value, which is not ""; "" if nothing is.
  check(text: string): string {
    let want = "";
    if (this.type == Type.Number && isNaN(parseNumber(text))) want = "a number";
    if (this.type == Type.Integer && !isWhole(text)) want = "a whole number";
    if (this.type == Type.Boolean && !isTrue(text) && !isFalse(text)) want = "true or false";
    if (want == "" && this.options_.length > 0 && !this.options_.includes(text)) want = "one of " + this.options_.join(", ");
    return want == "" ? "" : "setting " + this.name + " is " + excerpt(text) + ": want " + want;
  }

  append(b: Bytes): void {
    b.text("{").member("Name", this.name);
    b.member("DataType", this.type == Type.String ? "String" : this.type == Type.Boolean ? "Boolean" : "Number");
    b.name("Required").text(this.required_ ? "true" : "false");
    b.member("Description", this.description_);
    if (this.default_ != "") {
      b.name("Default");
      const number = parseNumber(this.default_);
      if (this.type == Type.Boolean && (isTrue(this.default_) || isFalse(this.default_))) {
        b.text(isTrue(this.default_) ? "true" : "false");
      } else if ((this.type == Type.Number || this.type == Type.Integer) && !isNaN(number)) {
        b.text(number.toString());
      } else {
        b.quoted(this.default_);
      }
    }
    if (this.options_.length > 0) {
      b.name("Options").text("[");
      for (let i = 0; i < this.options_.length; i++) {
        if (i > 0) b.text(",");
        b.quoted(this.options_[i]);
      }
      b.text("]");
    }
    b.text("}");
  }
}

// A ready work item. File names are relative to the folder of the provider's
// source.
export class Example {
  private names: string[] = [];
  private values: string[] = [];
  private source_: string = "";
  private content_: string = "";
  private output_: string = "";

  setting(name: string, value: string): Example {
    this.names.push(name);
    this.values.push(value);
    return this;
  }

  source(name: string): Example {
    this.source_ = name;
    return this;
  }

  // What the source holds, of a warm-up only.
  content(text: string): Example {
    this.content_ = text;
    return this;
  }

  output(name: string): Example {
    this.output_ = name;
    return this;
  }

  append(b: Bytes): void {
    b.name("Settings").text("{");
    for (let i = 0; i < this.names.length; i++) b.member(this.names[i], this.values[i]);
    b.text("}").member("Source", this.source_).member("Output", this.output_);
    if (this.content_ != "") b.member("Content", this.content_);
  }
}

// One verb of a capability. run returns null when the work is done, and otherwise
// what fail, exit or failure returns.
export class Action {
  description_: string = "";
  settings: Setting[] = [];
  example_: Example | null = null;

  constructor(
    readonly name: string,
    readonly run: (item: Item) => Failure | null,
  ) {}

  description(text: string): Action {
    this.description_ = text;
    return this;
  }

  // Adds a setting that the action accepts. Settings are checked before it runs.
  setting(s: Setting): Action {
    this.settings.push(s);
    return this;
  }

  // A work item that shows the action at work.
  example(e: Example): Action {
    this.example_ = e;
    return this;
  }

  append(b: Bytes): void {
    b.text("{").member("Name", this.name).member("Description", this.description_);
    b.name("SettingsSchema").text("[");
    for (let i = 0; i < this.settings.length; i++) {
      if (i > 0) b.text(",");
      this.settings[i].append(b);
    }
    b.text("]");
    const example = this.example_;
    if (example) {
      b.name("Example").text("{");
      example.append(b);
      b.text("}");
    }
    b.text("}");
  }
}

class Permission {
  constructor(
    readonly permission: string,
    readonly reason: string,
    readonly optional: bool,
  ) {}
}

// A provider: one capability, made of actions.
export class Provider {
  description_: string = "";
  actions: Action[] = [];
  permissions: Permission[] = [];
  initialize_: (() => Failure | null) | null = null;
  reseed_: (() => Failure | null) | null = null;
  shutdown_: (() => Failure | null) | null = null;
  warmUpAction: string = "";
  warmUp_: Example | null = null;

  // A provider by its own name and version, and the capability under which servers
  // dispatch work to it.
  constructor(
    readonly name: string,
    readonly version: string,
    readonly capability: string,
  ) {}

  description(text: string): Provider {
    this.description_ = text;
    return this;
  }

  // Adds an action; the first is the default.
  action(a: Action): Provider {
    this.actions.push(a);
    return this;
  }

  // Asks for a permission, such as "call LLM" or "http GET https://api.example.com/v1".
  // The operator decides. An optional one need not be granted.
  permission(permission: string, reason: string, optional: bool = false): Provider {
    this.permissions.push(new Permission(permission, reason, optional));
    return this;
  }

  // Runs once, before there is an item; every item begins with a copy of the memory
  // that it leaves.
  initialize(hook: () => Failure | null): Provider {
    this.initialize_ = hook;
    return this;
  }

  // Runs before each item, to make anew what initialize has made of random numbers.
  reseed(hook: () => Failure | null): Provider {
    this.reseed_ = hook;
    return this;
  }

  // Runs after each item that ended well.
  shutdown(hook: () => Failure | null): Provider {
    this.shutdown_ = hook;
    return this;
  }

  // An item that the host carries out once as part of the initialisation.
  warmUp(action: string, item: Example): Provider {
    this.warmUpAction = action;
    this.warmUp_ = item;
    return this;
  }

  find(action: string): Action | null {
    if (action == "" && this.actions.length > 0) return this.actions[0];
    for (let i = 0; i < this.actions.length; i++) {
      if (this.actions[i].name == action) return this.actions[i];
    }
    return null;
  }

  // What is wrong with the declaration; "" if nothing is.
  validate(): string {
    if (this.capability == "") return "the provider has no capability";
    if (this.actions.length == 0) return "capability " + this.capability + " has no actions";
    if (this.warmUp_ != null && this.find(this.warmUpAction) == null) {
      return "the warm-up has an action " + excerpt(this.warmUpAction) + " that capability " + this.capability + " does not have";
    }
    for (let i = 0; i < this.actions.length; i++) {
      const a = this.actions[i];
      if (a.name == "") return "capability " + this.capability + " has an action without a name";
      if (this.find(a.name) != a) return "action " + a.name + " is declared twice";
      for (let j = 0; j < a.settings.length; j++) {
        const s = a.settings[j];
        if (s.name == "") return "action " + a.name + " has a setting without a name";
        for (let k = 0; k < j; k++) {
          if (a.settings[k].name == s.name) return "action " + a.name + " declares setting " + s.name + " twice";
        }
        const wrong = s.default_ == "" ? "" : s.check(s.default_);
        if (wrong != "") return "action " + a.name + ": the default of " + wrong;
      }
    }
    return "";
  }

  manifest(): Bytes {
    const b = new Bytes().text("{");
    b.member("Name", this.name).member("Version", this.version).member("Capability", this.capability).member("Description", this.description_);
    b.name("Actions").text("[");
    for (let i = 0; i < this.actions.length; i++) {
      if (i > 0) b.text(",");
      this.actions[i].append(b);
    }
    b.text("]").name("Permissions").text("[");
    for (let i = 0; i < this.permissions.length; i++) {
      if (i > 0) b.text(",");
      const p = this.permissions[i];
      b.text("{").member("Permission", p.permission).member("Reason", p.reason);
      if (p.optional) b.name("Optional").text("true");
      b.text("}");
    }
    b.text("]");
    const warmUp = this.warmUp_;
    if (warmUp) {
      const action = this.find(this.warmUpAction);
      b.name("WarmUp").text("{").member("Action", action ? action.name : "");
      warmUp.append(b);
      b.text("}");
    }
    return b.text("}");
  }
}
