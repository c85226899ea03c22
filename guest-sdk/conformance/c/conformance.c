/* The conformance provider in C: see conformance_test.go for what it is to do.
 * It is C++ as well. */
#define BEACON_IMPLEMENTATION
#include "beacon.h"

static int initialized, reseeded, count, bad_shutdown;

static int echo(void) {
  size_t length;
  const char *text = beacon_text_of("Text", &length);
  beacon_set_text("Result", text, length);
  beacon_set_int("Size", (int64_t)length);
  beacon_set_int("Count", beacon_int("Count"));
  beacon_set_number("Factor", beacon_number("Factor"));
  beacon_set_bool("Flag", beacon_bool("Flag"));
  beacon_set_bool("Plain", beacon_bool("Plain"));
  beacon_set("Choice", beacon_text("Choice"));
  return 0;
}

static int show_item(void) {
  const beacon_work_item *item = beacon_item();
  size_t length;
  count++;
  beacon_set("Hash", item->hash);
  beacon_set("Capability", item->capability);
  beacon_set("Action", item->action);
  beacon_set("OperationHash", item->operation_hash);
  beacon_set("RunID", item->run_id);
  beacon_set_int("Attempt", item->attempt);
  beacon_set("SourcePath", item->source_path);
  beacon_set("OutputPath", item->output_path);
  char *settings = beacon_settings(&length);
  if (!settings) return BEACON_FAILED;
  beacon_set_json("Settings", settings, length);
  char *undeclared = beacon_lookup("Undeclared", NULL);
  beacon_set("Undeclared", undeclared ? undeclared : "");
  beacon_set_bool("HasUndeclared", undeclared != NULL);
  beacon_set_bool("HasNothing", beacon_lookup("Nothing", NULL) != NULL);
  char *host = beacon_config("Host", NULL);
  beacon_set("Host", host ? host : "");
  beacon_set_bool("HasNoConfig", beacon_config("Nothing", NULL) != NULL);
  char *config = beacon_config("", &length);
  if (!config) return BEACON_FAILED;
  beacon_set_json("Config", config, length);
  beacon_set_bool("Deadline", beacon_remaining() > 0);
  beacon_set_bool("Cancelled", beacon_cancelled());
  int64_t start = beacon_monotonic();
  beacon_set_bool("Clock", beacon_now() > 1600000000000000000);
  beacon_set_bool("Monotonic", beacon_monotonic() >= start);
  char a[16], b[16];
  beacon_random(a, sizeof a);
  beacon_random(b, sizeof b);
  beacon_set_bool("Random", memcmp(a, b, sizeof a) != 0);
  beacon_set_bool("Initialized", initialized);
  beacon_set_bool("Reseeded", reseeded);
  beacon_set_int("Items", count);
  return 0;
}

static int report(void) {
  static const char *const texts[] = {"a", "b\"c", ""};
  static const char json[] = "{\"a\":[1,2,{\"b\":null}]}";
  static char lines[110001];
  beacon_progress(25, "a quarter");
  beacon_progress(BEACON_UNKNOWN, "wondering");
  beacon_step(2, 4, "the second");
  beacon_debug("fine");
  beacon_log("first\nsecond");
  beacon_warn("careful: \"%s\" \xf0\x9f\x98\x80", "\xc3\xa9");
  for (int i = 0; i < 10000; i++) memcpy(lines + i * 11, "0123456789\n", 11);
  beacon_log("%s", lines);
  beacon_set("Text", "quote \" backslash \\ line\n tab\t \xc3\xa9 \xe2\x82\xac \xf0\x9f\x98\x80 \x01");
  beacon_set("Replaced", "one");
  beacon_set_int("Replaced", 2);
  beacon_set_int("Int", -42);
  beacon_set_int("Big", 4503599627370497);
  beacon_set_number("Float", 0.1);
  beacon_set_number("Tiny", 1.5e-7);
  beacon_set_number("Huge", 1e300);
  beacon_set_bool("Yes", 1);
  beacon_set_bool("No", 0);
  beacon_set_null("Null");
  beacon_set_bytes("Bytes", "\x00\xff\x10\x20", 4);
  beacon_set_texts("Texts", texts, 3);
  beacon_set_json("JSON", json, sizeof json - 1);
  beacon_std_out("for people");
  beacon_set_int("Result", 7);
  return 0;
}

static int bad_output(void) {
  beacon_set_number("Bad", NAN);
  beacon_set_int("Good", 1);
  return 0;
}

static int flood(void) {
  int64_t times = beacon_int("Times");
  char text[40];
  for (int64_t i = 0; i < times; i++) {
    snprintf(text, sizeof text, "item %lld", (long long)i);
    beacon_progress((double)i / (double)times * 100, text);
  }
  beacon_set_int("Result", times);
  return 0;
}

static int copy(void) {
  beacon_file in, out;
  static unsigned char buf[64 << 10];
  uint32_t hash = 2166136261u;
  int64_t total = 0;
  size_t n;
  int e;
  if ((e = beacon_open_source(&in)) || (e = beacon_create_output(&out))) return e;
  do {
    if ((e = beacon_read(&in, buf, sizeof buf, &n))) return e;
    for (size_t i = (size_t)((1024 - total % 1024) % 1024); i < n; i += 1024) hash = (hash ^ buf[i]) * 16777619;
    if ((e = beacon_write(&out, buf, n))) return e;
    total += (int64_t)n;
    beacon_progress(beacon_percent(&in), "copying");
  } while (n > 0);
  beacon_set_int("Bytes", total);
  beacon_set_int("Size", in.size);
  beacon_set_int("Hash", hash);
  return beacon_close(&out);
}

static int read_text(void) {
  size_t length;
  char *text = beacon_read_source(&length);
  if (!text) return BEACON_FAILED;
  beacon_set_text("Result", text, length);
  return beacon_write_output(text, length);
}

static const char *code(int e) {
  return e == BEACON_OK ? "ok" : e == BEACON_NOT_FOUND ? "not_found" : e == BEACON_EXISTS ? "exists" : e == BEACON_DENIED ? "denied" : beacon_error();
}

static int list(const char *output, const char *dir) {
  size_t length;
  char *json = beacon_list(dir, &length);
  if (!json) return BEACON_FAILED;
  beacon_set_json(output, json, length);
  return 0;
}

static int files(void) {
  beacon_file f;
  int64_t position;
  char text[16];
  size_t n;
  int e;
  if ((e = beacon_make_directory("pages"))) return e;
  if ((e = beacon_create(&f, "pages/1.txt")) || (e = beacon_write(&f, "hello", 5)) || (e = beacon_close(&f))) return e;
  if ((e = beacon_open_file(&f, "pages/1.txt", BEACON_WRITE | BEACON_APPEND)) || (e = beacon_write(&f, " world", 6)) || (e = beacon_close(&f))) return e;
  if ((e = beacon_open(&f, "pages/1.txt"))) return e;
  beacon_set_int("Size", f.size);
  if ((e = beacon_seek(&f, -5, 2, &position))) return e;
  beacon_set_int("Position", position);
  if ((e = beacon_read(&f, text, sizeof text, &n))) return e;
  beacon_set_text("Text", text, n);
  if ((e = beacon_close(&f)) || (e = beacon_rename("pages/1.txt", "pages/2.txt")) || (e = list("List", "pages"))) return e;
  beacon_set("Missing", code(beacon_open(&f, "missing.txt")));
  beacon_set("Exclusive", code(beacon_open_file(&f, "pages/2.txt", BEACON_WRITE | BEACON_CREATE | BEACON_EXCLUSIVE)));
  beacon_set("Source", code(beacon_open_file(&f, beacon_item()->source_path, BEACON_WRITE)));
  beacon_set_bool("Outside", beacon_open(&f, "../outside") != 0);
  beacon_set("NotEmpty", code(beacon_remove("pages")));
  beacon_set("Removed", code(beacon_remove("pages/2.txt")));
  beacon_set("RemovedDirectory", code(beacon_remove("pages")));
  return list("Left", ".");
}

static int fetch(void) {
  beacon_pair headers[] = {{"X-One", "1"}, {NULL, NULL}, {NULL, NULL}};
  beacon_request request;
  beacon_exchange x;
  size_t length;
  int e;
  memset(&request, 0, sizeof request);
  request.url = beacon_text("URL");
  request.method = beacon_text("Method");
  request.headers = headers;
  request.timeout_ms = 3600000;
  request.no_redirects = beacon_bool("NoRedirects");
  beacon_set_bool("HasOther", beacon_has_secret("other"));
  if (beacon_has_secret("key")) {
    headers[1].name = "Authorization";
    headers[1].value = "Bearer " BEACON_SECRET("key");
  }
  const char *body = beacon_text_of("Body", &length);
  if (length > 0 && beacon_bool("Stream")) {
    request.stream = -1;
    e = beacon_send(&x, &request);
    if (!e) e = beacon_send_body(&x, body, length, NULL);
    if (!e) e = beacon_wait_response(&x);
  } else {
    if (length > 0) request.body = body;
    request.body_size = length;
    e = beacon_fetch(&x, &request);
  }
  if (e == BEACON_DENIED) return beacon_exit(3, "%s", beacon_error());
  if (e) return e;
  beacon_set_int("Status", x.status);
  char *type = beacon_header(&x, "content-type"), *none = beacon_header(&x, "X-None");
  beacon_set("Type", type ? type : "");
  beacon_set("None", none ? none : "");
  char *head = beacon_response(&x, &length);
  if (!head) return BEACON_FAILED;
  beacon_set_json("Head", head, length);
  char *text = beacon_body(&x, &length);
  if (!text) return BEACON_FAILED;
  beacon_set_text("Result", text, length);
  return 0;
}

static int many(void) {
  static const char *const names[] = {"/a", "/b", "/c"};
  beacon_exchange x[3];
  char url[3][200], *bodies[3];
  uint32_t waiting[3];
  size_t place[3], left = 3, i, n;
  int e;
  for (i = 0; i < 3; i++) {
    beacon_request request;
    memset(&request, 0, sizeof request);
    snprintf(url[i], sizeof url[i], "%s%s", beacon_text("URL"), names[i]);
    request.url = url[i];
    if ((e = beacon_send(&x[i], &request))) return e;
    waiting[i] = x[i].handle;
    place[i] = i;
  }
  while (left > 0) { /* whichever comes first */
    if ((e = beacon_wait_any(waiting, left, -1, &n))) return e;
    i = place[n];
    if ((e = beacon_wait_response(&x[i]))) return e;
    if (!(bodies[i] = beacon_body(&x[i], NULL))) return BEACON_FAILED;
    left--;
    waiting[n] = waiting[left];
    place[n] = place[left];
  }
  char all[1000];
  size_t length = 0;
  for (i = 0; i < 3; i++) length += (size_t)snprintf(all + length, sizeof all - length, "%s\n", bodies[i]);
  return beacon_result(all);
}

static int call(void) {
  static const beacon_pair settings[] = {{"A", "1"}, {"B", "\xc3\xa9\""}, {NULL, NULL}};
  beacon_call c;
  beacon_running running;
  const char *seen[64];
  size_t count_seen = 0, length;
  int e;
  memset(&c, 0, sizeof c);
  c.capability = beacon_text("Capability");
  c.action = "Do";
  c.texts = settings;
  c.source = beacon_text("Source");
  c.output = beacon_text("Output");
  c.timeout_ms = 3600000;
  c.progress = beacon_bool("Watch") ? BEACON_KEEP : BEACON_FORWARD;
  e = beacon_begin_call(&running, &c);
  if (!e && c.progress == BEACON_KEEP) {
    char *message;
    while (count_seen < 64 && (message = beacon_call_progress(&running, &length))) {
      char *text = beacon_member(message, length, "Message", NULL);
      seen[count_seen++] = text ? text : "";
    }
    if (*beacon_error()) return BEACON_FAILED;
  }
  if (!e) e = beacon_wait_call(&running);
  if (e == BEACON_DENIED) return beacon_exit(3, "%s", beacon_error());
  if (e) return e;
  char *result = beacon_call_output(&running, "Result", &length);
  beacon_set_text("Result", result ? result : "", result ? length : 0);
  beacon_set_int("CalleeExitCode", beacon_call_exit_code(&running));
  beacon_set_texts("Seen", seen, count_seen);
  return beacon_close_call(&running);
}

static int fail(void) { return beacon_fail("%s", beacon_text("Message")); }

static int leave(void) {
  if (*beacon_text("Say")) beacon_std_out(beacon_text("Say"));
  return beacon_exit((int)beacon_int("Code"), "%s", beacon_text("Message"));
}

static int panic(void) { beacon_panic("boom"); }
static int undeclared(void) { return *beacon_text("Nothing"); }
static int trap(void) { __builtin_trap(); }
static int quit(void) { exit(3); }

static int fail_at_shutdown(void) {
  bad_shutdown = 1;
  return 0;
}

static int wait_for_cancel(void) {
  beacon_progress(0, "waiting");
  while (!beacon_cancelled()) beacon_sleep(1);
  return beacon_fail("gave up");
}

static int spin(void) {
  for (volatile int n = 0;; n++) {
  }
}

static int initialize(void) {
  initialized = 1;
  return 0;
}

static int reseed(void) {
  reseeded = 1;
  return 0;
}

static int end(void) {
  beacon_log("the end");
  return bad_shutdown ? beacon_fail("no end") : 0;
}

#define SETTING(name, type, description, required, value, options) {name, type, description, required, value, options}
#define TEXT(name) SETTING(name, BEACON_STRING, NULL, 0, NULL, NULL)
#define LAST SETTING(NULL, BEACON_STRING, NULL, 0, NULL, NULL)
#define ACTION(name, settings, run) {name, NULL, settings, run, NULL}

static const char *const choices[] = {"red", "green", NULL};
static const beacon_setting echo_settings[] = {
    SETTING("Text", BEACON_STRING, "what to say", 1, NULL, NULL),
    SETTING("Count", BEACON_INTEGER, "a whole number", 0, "1", NULL),
    SETTING("Factor", BEACON_NUMBER, NULL, 0, "1.5", NULL),
    SETTING("Flag", BEACON_BOOLEAN, NULL, 0, "true", NULL),
    SETTING("Plain", BEACON_BOOLEAN, NULL, 0, NULL, NULL),
    SETTING("Choice", BEACON_STRING, NULL, 0, "red", choices),
    LAST};
static const beacon_setting flood_settings[] = {SETTING("Times", BEACON_INTEGER, NULL, 0, "10", NULL), LAST};
static const beacon_setting fetch_settings[] = {
    SETTING("URL", BEACON_STRING, NULL, 1, NULL, NULL), TEXT("Method"), TEXT("Body"),
    SETTING("Stream", BEACON_BOOLEAN, NULL, 0, NULL, NULL), SETTING("NoRedirects", BEACON_BOOLEAN, NULL, 0, NULL, NULL), LAST};
static const beacon_setting many_settings[] = {SETTING("URL", BEACON_STRING, NULL, 1, NULL, NULL), LAST};
static const beacon_setting call_settings[] = {
    SETTING("Capability", BEACON_STRING, NULL, 1, NULL, NULL), SETTING("Watch", BEACON_BOOLEAN, NULL, 0, NULL, NULL), TEXT("Source"), TEXT("Output"), LAST};
static const beacon_setting fail_settings[] = {TEXT("Message"), LAST};
static const beacon_setting exit_settings[] = {SETTING("Code", BEACON_INTEGER, NULL, 0, NULL, NULL), TEXT("Message"), TEXT("Say"), LAST};

static const beacon_pair example_settings[] = {{"Text", "hello"}, {NULL, NULL}};
static const beacon_example example = {NULL, example_settings, "in.txt", NULL, "out.txt"};

static const beacon_action actions[] = {
    {"Echo", "Hands back its settings.", echo_settings, echo, &example},
    ACTION("Item", NULL, show_item),
    ACTION("Report", NULL, report),
    ACTION("BadOutput", NULL, bad_output),
    ACTION("Flood", flood_settings, flood),
    ACTION("Copy", NULL, copy),
    ACTION("Text", NULL, read_text),
    ACTION("Files", NULL, files),
    ACTION("Fetch", fetch_settings, fetch),
    ACTION("Many", many_settings, many),
    ACTION("Call", call_settings, call),
    ACTION("Fail", fail_settings, fail),
    ACTION("Exit", exit_settings, leave),
    ACTION("Panic", NULL, panic),
    ACTION("Undeclared", NULL, undeclared),
    ACTION("Trap", NULL, trap),
    ACTION("BadShutdown", NULL, fail_at_shutdown),
    ACTION("Quit", NULL, quit),
    ACTION("Cancel", NULL, wait_for_cancel),
    ACTION("Spin", NULL, spin),
    ACTION(NULL, NULL, NULL)};

static const beacon_permission permissions[] = {
    {"http GET,POST https://api.example.com/v1", "to fetch \"pages\"", 0}, {"secret key", "to be let in", 1}, {NULL, NULL, 0}};

static const beacon_provider provider = {
    "conformance", "1.2.3", "Conformance", "Uses all that a host offers.", actions, permissions, initialize, reseed, end, NULL};

BEACON_SERVE(provider)
