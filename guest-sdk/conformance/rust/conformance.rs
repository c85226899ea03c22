//! The conformance provider in Rust: see conformance_test.go for what it is to do.

use std::io::{Read, Seek, SeekFrom, Write};
use std::sync::atomic::{AtomicBool, AtomicI64, Ordering::SeqCst};
use std::time::Duration;

use beacon::{secret, Action, Bytes, Call, CalleeProgress, Entry, Errno, Error, Example, Item, Json, Level, Options, Provider, Request, Result, Setting, Waitable};

beacon::serve!(provider);

fn provider() -> Provider {
    Provider::new("conformance", "1.2.3", "Conformance")
        .description("Uses all that a host offers.")
        .permission("http GET,POST https://api.example.com/v1", "to fetch \"pages\"")
        .optional_permission("secret key", "to be let in")
        .action(
            Action::new("Echo", echo)
                .description("Hands back its settings.")
                .setting(Setting::text("Text").required().description("what to say"))
                .setting(Setting::integer("Count").default("1").description("a whole number"))
                .setting(Setting::number("Factor").default("1.5"))
                .setting(Setting::boolean("Flag").default("true"))
                .setting(Setting::boolean("Plain"))
                .setting(Setting::text("Choice").default("red").options(&["red", "green"]))
                .example(Example::new().setting("Text", "hello").source("in.txt").output("out.txt")),
        )
        .action(Action::new("Item", show_item))
        .action(Action::new("Report", report))
        .action(Action::new("BadOutput", bad_output))
        .action(Action::new("Flood", flood).setting(Setting::integer("Times").default("10")))
        .action(Action::new("Copy", copy))
        .action(Action::new("Text", read_text))
        .action(Action::new("Files", files))
        .action(
            Action::new("Fetch", fetch)
                .setting(Setting::text("URL").required())
                .setting(Setting::text("Method"))
                .setting(Setting::text("Body"))
                .setting(Setting::boolean("Stream"))
                .setting(Setting::boolean("NoRedirects")),
        )
        .action(Action::new("Many", many).setting(Setting::text("URL").required()))
        .action(
            Action::new("Call", call)
                .setting(Setting::text("Capability").required())
                .setting(Setting::boolean("Watch"))
                .setting(Setting::text("Source"))
                .setting(Setting::text("Output")),
        )
        .action(Action::new("Fail", |item| Err(item.text("Message").into())).setting(Setting::text("Message")))
        .action(
            Action::new("Exit", leave).setting(Setting::integer("Code")).setting(Setting::text("Message")).setting(Setting::text("Say")),
        )
        .action(Action::new("Panic", |_| panic!("boom")))
        .action(Action::new("Undeclared", |item| {
            item.text("Nothing");
            Ok(())
        }))
        .action(Action::new("Trap", |_| core::arch::wasm32::unreachable()))
        .action(Action::new("BadShutdown", |_| {
            BAD_SHUTDOWN.store(true, SeqCst);
            Ok(())
        }))
        .action(Action::new("Quit", |_| std::process::exit(3)))
        .action(Action::new("Cancel", wait_for_cancel))
        .action(Action::new("Spin", |_| loop {
            COUNT.fetch_add(1, SeqCst);
        }))
        .initialize(|| {
            INITIALIZED.store(true, SeqCst);
            Ok(())
        })
        .reseed(|| {
            RESEEDED.store(true, SeqCst);
            Ok(())
        })
        .shutdown(|| {
            beacon::log(Level::Info, "the end");
            if BAD_SHUTDOWN.load(SeqCst) {
                return Err("no end".into());
            }
            Ok(())
        })
}

static INITIALIZED: AtomicBool = AtomicBool::new(false);
static RESEEDED: AtomicBool = AtomicBool::new(false);
static BAD_SHUTDOWN: AtomicBool = AtomicBool::new(false);
static COUNT: AtomicI64 = AtomicI64::new(0);

fn echo(item: &mut Item) -> Result {
    let text = item.text("Text").to_string();
    item.result(&text);
    item.set("Size", text.len());
    item.set("Count", item.int("Count"));
    item.set("Factor", item.number("Factor"));
    item.set("Flag", item.bool("Flag"));
    item.set("Plain", item.bool("Plain"));
    item.set("Choice", item.text("Choice").to_string());
    Ok(())
}

fn show_item(item: &mut Item) -> Result {
    let work = item.work.clone();
    item.set("Hash", work.hash);
    item.set("Capability", work.capability);
    item.set("Action", work.action);
    item.set("OperationHash", work.operation_hash);
    item.set("RunID", work.run_id);
    item.set("Attempt", work.attempt);
    item.set("SourcePath", work.source_path);
    item.set("OutputPath", work.output_path);
    item.set("Settings", Json(item.settings()?));
    let undeclared = item.lookup("Undeclared")?;
    item.set("HasUndeclared", undeclared.is_some());
    item.set("Undeclared", undeclared.unwrap_or_default());
    item.set("HasNothing", item.lookup("Nothing")?.is_some());
    item.set("Host", item.config("Host")?.unwrap_or_default());
    item.set("HasNoConfig", item.config("Nothing")?.is_some());
    item.set("Config", Json(item.config("")?.unwrap_or_default()));
    item.set("Deadline", item.remaining().map_or(false, |left| left > Duration::ZERO));
    item.set("Cancelled", item.cancelled());
    let start = beacon::monotonic();
    item.set("Clock", beacon::now().as_secs() > 1_600_000_000);
    item.set("Monotonic", beacon::monotonic() >= start);
    let (mut a, mut b) = ([0; 16], [0; 16]);
    beacon::random(&mut a)?;
    beacon::random(&mut b)?;
    item.set("Random", a != b);
    item.set("Initialized", INITIALIZED.load(SeqCst));
    item.set("Reseeded", RESEEDED.load(SeqCst));
    item.set("Items", COUNT.fetch_add(1, SeqCst) + 1);
    Ok(())
}

fn report(item: &mut Item) -> Result {
    item.progress(25.0, "a quarter");
    item.progress(beacon::UNKNOWN, "wondering");
    item.step(2, 4, "the second");
    item.debug("fine");
    item.log("first\nsecond");
    item.warn("careful: \"é\" 😀");
    item.log(&"0123456789\n".repeat(10_000));
    item.set("Text", "quote \" backslash \\ line\n tab\t é € 😀 \x01");
    item.set("Replaced", "one");
    item.set("Replaced", 2);
    item.set("Int", -42);
    item.set("Big", 4503599627370497i64);
    item.set("Float", 0.1);
    item.set("Tiny", 1.5e-7);
    item.set("Huge", 1e300);
    item.set("Yes", true);
    item.set("No", false);
    item.set("Null", None::<i32>);
    item.set("Bytes", Bytes([0, 255, 16, 32]));
    item.set("Texts", vec!["a", "b\"c", ""]);
    item.set("JSON", Json(r#"{"a":[1,2,{"b":null}]}"#));
    item.std_out("for people");
    item.result(7);
    Ok(())
}

fn bad_output(item: &mut Item) -> Result {
    item.set("Bad", f64::NAN);
    item.set("Good", 1);
    Ok(())
}

fn flood(item: &mut Item) -> Result {
    let times = item.int("Times");
    for i in 0..times {
        item.progress(i as f64 / times as f64 * 100.0, &format!("item {}", i));
    }
    item.result(times);
    Ok(())
}

fn copy(item: &mut Item) -> Result {
    let mut input = item.open_source()?;
    let mut output = item.create_output()?;
    let mut buf = vec![0; 64 << 10];
    let (mut hash, mut total) = (2166136261u32, 0usize);
    loop {
        let n = input.read(&mut buf)?;
        for c in buf[..n].iter().skip((1024 - total % 1024) % 1024).step_by(1024) {
            hash = (hash ^ u32::from(*c)).wrapping_mul(16777619);
        }
        output.write_all(&buf[..n])?;
        total += n;
        item.progress(input.percent(), "copying");
        if n == 0 {
            break;
        }
    }
    item.set("Bytes", total);
    item.set("Size", input.size());
    item.set("Hash", hash);
    output.close()
}

fn read_text(item: &mut Item) -> Result {
    let data = item.read_source()?;
    item.result(beacon::lossy(&data));
    item.write_output(&data)
}

fn code<T>(result: Result<T>) -> String {
    match result {
        Ok(_) => "ok".into(),
        Err(err) => match err.errno() {
            Some(Errno::NOT_FOUND) => "not_found".into(),
            Some(Errno::EXISTS) => "exists".into(),
            Some(Errno::DENIED) => "denied".into(),
            _ => err.to_string(),
        },
    }
}

fn list(entries: Vec<Entry>) -> Json<String> {
    let entries: Vec<_> =
        entries.iter().map(|e| format!(r#"{{"Name":"{}","Size":{},"Directory":{}}}"#, e.name, e.size, e.directory)).collect();
    Json(format!("[{}]", entries.join(",")))
}

fn files(item: &mut Item) -> Result {
    item.make_directory("pages")?;
    let mut file = item.create("pages/1.txt")?;
    file.write_all(b"hello")?;
    file.close()?;
    let mut file = item.open_with("pages/1.txt", Options::WRITE | Options::APPEND)?;
    file.write_all(b" world")?;
    file.close()?;
    let mut file = item.open("pages/1.txt")?;
    item.set("Size", file.size());
    item.set("Position", file.seek(SeekFrom::End(-5))?);
    let mut text = String::new();
    file.read_to_string(&mut text)?;
    item.set("Text", text);
    file.close()?;
    item.rename("pages/1.txt", "pages/2.txt")?;
    item.set("List", list(item.list("pages")?));
    item.set("Missing", code(item.open("missing.txt")));
    item.set("Exclusive", code(item.open_with("pages/2.txt", Options::WRITE | Options::CREATE | Options::EXCLUSIVE)));
    item.set("Source", code(item.open_with(&item.work.source_path, Options::WRITE)));
    item.set("Outside", item.open("../outside").is_err());
    item.set("NotEmpty", code(item.remove("pages")));
    item.set("Removed", code(item.remove("pages/2.txt")));
    item.set("RemovedDirectory", code(item.remove("pages")));
    item.set("Left", list(item.list(".")?));
    Ok(())
}

/// What was not granted is a result here, and no failure.
fn granted<T>(result: Result<T>) -> Result<T> {
    result.map_err(|err| match err.errno() {
        Some(Errno::DENIED) => Error::exit(3, err.to_string()),
        _ => err,
    })
}

fn fetch(item: &mut Item) -> Result {
    let mut request = Request::new(item.text("Method"), item.text("URL")).header("X-One", "1").timeout(Duration::from_secs(3600));
    if item.bool("NoRedirects") {
        request = request.no_redirects();
    }
    item.set("HasOther", item.has_secret("other"));
    if item.has_secret("key") {
        request = request.header("Authorization", &format!("Bearer {}", secret("key")));
    }
    let body = item.text("Body").to_string();
    let response = if !body.is_empty() && item.bool("Stream") {
        let mut pending = granted(item.send(&request.stream(None)))?;
        pending.send(body.as_bytes())?;
        granted(pending.response())?
    } else {
        if !body.is_empty() {
            request = request.body(body);
        }
        granted(item.fetch(&request))?
    };
    item.set("Status", response.status);
    item.set("Type", response.header("content-type").unwrap_or_default());
    item.set("None", response.header("X-None").unwrap_or_default());
    item.set("Head", Json(response.description()?));
    item.result(response.text()?);
    Ok(())
}

fn many(item: &mut Item) -> Result {
    let mut pending = Vec::new();
    for (i, name) in ["/a", "/b", "/c"].iter().enumerate() {
        pending.push((i, item.send(&Request::get(&format!("{}{}", item.text("URL"), name)))?));
    }
    let mut bodies = vec![String::new(); 3];
    while !pending.is_empty() {
        let list: Vec<&dyn Waitable> = pending.iter().map(|(_, p)| p as &dyn Waitable).collect();
        let next = beacon::wait_any(&list, None)?.unwrap_or(0); // whichever comes first
        let (i, first) = pending.swap_remove(next);
        bodies[i] = first.response()?.text()?;
    }
    item.result(bodies.join("\n") + "\n");
    Ok(())
}

fn call(item: &mut Item) -> Result {
    let watch = item.bool("Watch");
    let call = Call::new(item.text("Capability"))
        .action("Do")
        .setting("A", "1")
        .setting("B", "é\"")
        .source(item.text("Source"))
        .output(item.text("Output"))
        .timeout(Duration::from_secs(3600))
        .progress(if watch { CalleeProgress::Keep } else { CalleeProgress::Forward });
    let mut running = granted(item.begin(&call))?;
    let mut seen = Vec::new();
    if watch {
        while let Some(message) = running.progress()? {
            seen.push(message.message);
        }
    }
    let outcome = granted(running.wait())?;
    item.result(outcome.output("Result").unwrap_or_default());
    item.set("CalleeExitCode", outcome.exit_code());
    item.set("Seen", seen);
    Ok(())
}

fn leave(item: &mut Item) -> Result {
    let say = item.text("Say").to_string();
    if !say.is_empty() {
        item.std_out(&say);
    }
    Err(Error::exit(item.int("Code") as i32, item.text("Message")))
}

fn wait_for_cancel(item: &mut Item) -> Result {
    item.progress(0.0, "waiting");
    while !item.cancelled() {
        beacon::sleep(Duration::from_millis(1));
    }
    Err("gave up".into())
}
