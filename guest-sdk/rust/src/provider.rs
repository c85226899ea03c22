use crate::error::Error;
use crate::item::Item;
use crate::json::{member, string, text_member};

/// A provider: one capability, made of actions.
pub struct Provider {
    pub(crate) name: String,
    pub(crate) version: String,
    pub(crate) capability: String,
    pub(crate) description: String,
    pub(crate) actions: Vec<Action>,
    pub(crate) permissions: Vec<(String, String, bool)>,
    pub(crate) initialize: Option<Hook>,
    pub(crate) reseed: Option<Hook>,
    pub(crate) shutdown: Option<Hook>,
    pub(crate) warm_up: Option<(String, Example)>,
}

/// A function that runs before or after items.
pub type Hook = fn() -> Result<(), Error>;

/// What carries out an item. An error ends it as failed with the error's text, and
/// the server may try again; see [`Error::exit`] for another end.
pub type Run = fn(&mut Item) -> Result<(), Error>;

impl Provider {
    /// A provider by its own name and version, and the capability under which
    /// servers dispatch work to it.
    pub fn new(name: &str, version: &str, capability: &str) -> Provider {
        Provider {
            name: name.into(),
            version: version.into(),
            capability: capability.into(),
            description: String::new(),
            actions: Vec::new(),
            permissions: Vec::new(),
            initialize: None,
            reseed: None,
            shutdown: None,
            warm_up: None,
        }
    }

    pub fn description(mut self, text: &str) -> Provider {
        self.description = text.into();
        self
    }

    /// Adds an action; the first is the default.
    pub fn action(mut self, action: Action) -> Provider {
        self.actions.push(action);
        self
    }

    /// Asks for a permission, such as "call LLM" or "http GET https://api.example.com/v1".
    /// The operator decides.
    pub fn permission(mut self, permission: &str, reason: &str) -> Provider {
        self.permissions.push((permission.into(), reason.into(), false));
        self
    }

    /// Asks for a permission that need not be granted.
    pub fn optional_permission(mut self, permission: &str, reason: &str) -> Provider {
        self.permissions.push((permission.into(), reason.into(), true));
        self
    }

    /// Runs once, before there is an item; every item begins with a copy of the
    /// memory that it leaves.
    pub fn initialize(mut self, hook: Hook) -> Provider {
        self.initialize = Some(hook);
        self
    }

    /// Runs before each item, to make anew what initialize has made of random numbers.
    pub fn reseed(mut self, hook: Hook) -> Provider {
        self.reseed = Some(hook);
        self
    }

    /// Runs after each item that ended well.
    pub fn shutdown(mut self, hook: Hook) -> Provider {
        self.shutdown = Some(hook);
        self
    }

    /// An item that the host carries out once as part of the initialisation.
    pub fn warm_up(mut self, action: &str, item: Example) -> Provider {
        self.warm_up = Some((action.into(), item));
        self
    }

    pub(crate) fn find(&self, action: &str) -> Option<&Action> {
        if action.is_empty() {
            return self.actions.first();
        }
        self.actions.iter().find(|a| a.name == action)
    }

    /// Reports what is wrong with the declaration.
    pub(crate) fn validate(&self) -> Result<(), Error> {
        let wrong = |text: String| Err(Error::new(text));
        if self.capability.is_empty() {
            return wrong("the provider has no capability".into());
        }
        if self.actions.is_empty() {
            return wrong(format!("capability {} has no actions", self.capability));
        }
        if let Some((action, _)) = &self.warm_up {
            if self.find(action).is_none() {
                return wrong(format!("warm_up has an action {} that capability {} does not have", excerpt(action), self.capability));
            }
        }
        for (i, a) in self.actions.iter().enumerate() {
            if a.name.is_empty() {
                return wrong(format!("capability {} has an action without a name", self.capability));
            }
            if self.actions[..i].iter().any(|other| other.name == a.name) {
                return wrong(format!("action {} is declared twice", a.name));
            }
            for (j, s) in a.settings.iter().enumerate() {
                if s.name.is_empty() {
                    return wrong(format!("action {} has a setting without a name", a.name));
                }
                if a.settings[..j].iter().any(|other| other.name == s.name) {
                    return wrong(format!("action {} declares setting {} twice", a.name, s.name));
                }
                if !s.default.is_empty() {
                    if let Err(err) = s.check(&s.default) {
                        return wrong(format!("action {}: the default of {}", a.name, err));
                    }
                }
            }
        }
        Ok(())
    }

    pub(crate) fn manifest(&self) -> String {
        let mut out = String::from("{");
        text_member(&mut out, "Name", &self.name);
        text_member(&mut out, "Version", &self.version);
        text_member(&mut out, "Capability", &self.capability);
        text_member(&mut out, "Description", &self.description);
        list(&mut out, "Actions", &self.actions, Action::append);
        list(&mut out, "Permissions", &self.permissions, |(permission, reason, optional), out| {
            out.push('{');
            text_member(out, "Permission", permission);
            text_member(out, "Reason", reason);
            if *optional {
                out.push_str(",\"Optional\":true");
            }
            out.push('}');
        });
        if let Some((action, item)) = &self.warm_up {
            out.push_str(",\"WarmUp\":{");
            text_member(&mut out, "Action", &self.find(action).map_or(String::new(), |a| a.name.clone()));
            item.append(&mut out);
            text_member(&mut out, "Content", &item.content);
            out.push('}');
        }
        out.push('}');
        out
    }
}

fn list<T>(out: &mut String, name: &str, items: &[T], append: impl Fn(&T, &mut String)) {
    out.push_str(",\"");
    out.push_str(name);
    out.push_str("\":[");
    for (i, item) in items.iter().enumerate() {
        if i > 0 {
            out.push(',');
        }
        append(item, out);
    }
    out.push(']');
}

/// One verb of a capability.
pub struct Action {
    pub(crate) name: String,
    description: String,
    pub(crate) settings: Vec<Setting>,
    example: Option<Example>,
    pub(crate) run: Run,
}

impl Action {
    /// An action by the name with which work items ask for it.
    pub fn new(name: &str, run: Run) -> Action {
        Action { name: name.into(), description: String::new(), settings: Vec::new(), example: None, run }
    }

    pub fn description(mut self, text: &str) -> Action {
        self.description = text.into();
        self
    }

    /// Adds a setting that the action accepts. Settings are checked before it runs.
    pub fn setting(mut self, setting: Setting) -> Action {
        self.settings.push(setting);
        self
    }

    /// A work item that shows the action at work.
    pub fn example(mut self, example: Example) -> Action {
        self.example = Some(example);
        self
    }

    fn append(&self, out: &mut String) {
        out.push('{');
        text_member(out, "Name", &self.name);
        text_member(out, "Description", &self.description);
        list(out, "SettingsSchema", &self.settings, Setting::append);
        if let Some(example) = &self.example {
            out.push_str(",\"Example\":{");
            example.append(out);
            out.push('}');
        }
        out.push('}');
    }
}

/// A ready work item. File names are relative to the folder of the provider's
/// source.
#[derive(Default)]
pub struct Example {
    settings: Vec<(String, String)>,
    source: String,
    content: String,
    output: String,
}

impl Example {
    pub fn new() -> Example {
        Example::default()
    }

    pub fn setting(mut self, name: &str, value: &str) -> Example {
        self.settings.push((name.into(), value.into()));
        self
    }

    pub fn source(mut self, name: &str) -> Example {
        self.source = name.into();
        self
    }

    /// What the source holds, of a warm-up only.
    pub fn content(mut self, text: &str) -> Example {
        self.content = text.into();
        self
    }

    pub fn output(mut self, name: &str) -> Example {
        self.output = name.into();
        self
    }

    fn append(&self, out: &mut String) {
        if !out.ends_with('{') {
            out.push(',');
        }
        out.push_str("\"Settings\":{");
        for (name, value) in &self.settings {
            text_member(out, name, value);
        }
        out.push('}');
        text_member(out, "Source", &self.source);
        text_member(out, "Output", &self.output);
    }
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Kind {
    Text,
    Number,
    Integer,
    Boolean,
}

/// Declares one parameter of an action.
pub struct Setting {
    pub(crate) name: String,
    kind: Kind,
    pub(crate) description: String,
    pub(crate) required: bool,
    pub(crate) default: String,
    options: Vec<String>,
}

impl Setting {
    fn new(name: &str, kind: Kind) -> Setting {
        Setting { name: name.into(), kind, description: String::new(), required: false, default: String::new(), options: Vec::new() }
    }

    pub fn text(name: &str) -> Setting {
        Setting::new(name, Kind::Text)
    }

    pub fn number(name: &str) -> Setting {
        Setting::new(name, Kind::Number)
    }

    /// A whole number. Ultravisor knows it as a number.
    pub fn integer(name: &str) -> Setting {
        Setting::new(name, Kind::Integer)
    }

    pub fn boolean(name: &str) -> Setting {
        Setting::new(name, Kind::Boolean)
    }

    pub fn description(mut self, text: &str) -> Setting {
        self.description = text.into();
        self
    }

    /// The setting must be given; "" counts as not given.
    pub fn required(mut self) -> Setting {
        self.required = true;
        self
    }

    /// The value of an absent setting, in the form it would be given in: "4", "true".
    pub fn default(mut self, value: &str) -> Setting {
        self.default = value.into();
        self
    }

    /// The only values allowed.
    pub fn options(mut self, values: &[&str]) -> Setting {
        self.options = values.iter().map(|v| v.to_string()).collect();
        self
    }

    /// Whether the setting may have this value, which is not "".
    pub(crate) fn check(&self, text: &str) -> Result<(), Error> {
        let want = match self.kind {
            Kind::Number if number(text).is_none() => "a number".to_string(),
            Kind::Integer if integer(text).is_none() => "a whole number".to_string(),
            Kind::Boolean if boolean(text).is_none() => "true or false".to_string(),
            _ if !self.options.is_empty() && !self.options.iter().any(|o| o == text) => format!("one of {}", self.options.join(", ")),
            _ => return Ok(()),
        };
        Err(Error::new(format!("setting {} is {}: want {}", self.name, excerpt(text), want)))
    }

    fn append(&self, out: &mut String) {
        out.push('{');
        text_member(out, "Name", &self.name);
        text_member(out, "DataType", match self.kind {
            Kind::Text => "String",
            Kind::Number | Kind::Integer => "Number",
            Kind::Boolean => "Boolean",
        });
        out.push_str(if self.required { ",\"Required\":true" } else { ",\"Required\":false" });
        text_member(out, "Description", &self.description);
        if !self.default.is_empty() {
            // A bad default is the author's, and is told apart by validate.
            let _ = match self.kind {
                Kind::Number | Kind::Integer => member(out, "Default", &number(&self.default)),
                Kind::Boolean => member(out, "Default", &boolean(&self.default)),
                Kind::Text => member(out, "Default", &self.default),
            };
        }
        if !self.options.is_empty() {
            let _ = member(out, "Options", &self.options); // text can always be written
        }
        out.push('}');
    }
}

/// Reads a number as all SDKs do: decimal, and neither infinite nor NaN.
pub(crate) fn number(text: &str) -> Option<f64> {
    if !text.bytes().all(|c| matches!(c, b'0'..=b'9' | b'+' | b'-' | b'.' | b'e' | b'E')) {
        return None;
    }
    text.parse().ok().filter(|n: &f64| n.is_finite())
}

/// Reads a whole number. Servers write large ones as 1e+21, and people write 10.0,
/// so what a float holds exactly is fine, too.
pub(crate) fn integer(text: &str) -> Option<i64> {
    text.parse().ok().or_else(|| number(text).filter(|n| n.abs() < 9007199254740992.0 && n.trunc() == *n).map(|n| n as i64))
}

pub(crate) fn boolean(text: &str) -> Option<bool> {
    match text {
        "1" | "t" | "T" | "TRUE" | "true" | "True" => Some(true),
        "0" | "f" | "F" | "FALSE" | "false" | "False" => Some(false),
        _ => None,
    }
}

/// Quotes text from strangers for a message: short, on one line.
pub(crate) fn excerpt(text: &str) -> String {
    const MOST: usize = 80;
    let mut end = text.len().min(MOST);
    while !text.is_char_boundary(end) {
        end -= 1;
    }
    let mut out = String::new();
    string(&mut out, &text[..end]);
    if end < text.len() {
        out.push('…');
    }
    out
}
