/* beacon.h - providers for Beacon in C and C++.
 *
 * A provider describes itself in a beacon_provider and hands that to
 * BEACON_SERVE. In exactly one file of a module, define BEACON_IMPLEMENTATION
 * before including this header. It needs a C99 compiler for wasm32 with a C
 * library (wasi-libc); as C++ it needs C++11 and neither exceptions nor libc++.
 *
 *   clang --target=wasm32-wasi -O2 -mexec-model=reactor -Wl,-s -o hello.wasm hello.c
 *
 * One module works on one item at a time, so there is no handle for the item:
 * all functions are about the one at hand.
 *
 * Errors. Functions that can fail return 0 or a beacon_errno, and note a text
 * about what went wrong. An action that returns it ends the item as failed with
 * that text; beacon_fail notes another one.
 *
 * Memory. Text that the SDK returns comes from malloc and ends with a byte 0
 * that its length does not count. It may be freed, and need not be: after each
 * item the host puts the memory back to what it was before.
 *
 * hostfuncs/ABI.md describes the functions of the host that all this rests on.
 */
#ifndef BEACON_H
#define BEACON_H

#include <stddef.h>
#include <stdint.h>

#ifdef __cplusplus
extern "C" {
#endif

/* ---- Declaring a provider ------------------------------------------------ */

/* The types of settings. Ultravisor knows integers as numbers. */
typedef enum { BEACON_STRING, BEACON_NUMBER, BEACON_INTEGER, BEACON_BOOLEAN } beacon_type;

/* A setting that an action accepts. Settings are checked before the action runs:
 * it never sees one that is missing or malformed. */
typedef struct {
  const char *name;
  beacon_type type;
  const char *description;
  /* A required setting must be given; "" counts as not given. */
  int required;
  /* The value of an absent setting, in the form it would be given in: "4",
   * "true". Without one it is "", 0 or false. */
  const char *default_value;
  /* The only values allowed, ended by NULL; NULL for any. */
  const char *const *options;
} beacon_setting;

/* A name with a text: a setting of an example, a header of a request. */
typedef struct {
  const char *name, *value;
} beacon_pair;

/* A ready work item that shows an action at work, or that is done once as part
 * of the initialisation (see beacon_provider). settings is ended by a pair
 * without a name; content, of a warm-up only, is what its source holds. */
typedef struct {
  const char *action; /* of a warm-up; NULL is the first */
  const beacon_pair *settings;
  const char *source, *content, *output;
} beacon_example;

/* One verb of a capability. run returns 0 when the work is done; see the top of
 * this file for anything else, and beacon_exit. */
typedef struct {
  const char *name, *description;
  const beacon_setting *settings; /* ended by one without a name; NULL for none */
  int (*run)(void);
  const beacon_example *example;
} beacon_action;

/* Something that the provider wants to be allowed, as in "call LLM", "http GET
 * https://api.example.com/v1" or "secret translator". The operator decides. An
 * optional one need not be granted. */
typedef struct {
  const char *permission, *reason;
  int optional;
} beacon_permission;

/* A provider: one capability, made of actions. */
typedef struct {
  const char *name, *version, *capability, *description;
  const beacon_action *actions;         /* ended by one without a name; the first is the default */
  const beacon_permission *permissions; /* ended by one without a permission; NULL for none */
  /* The hooks may be NULL; 0 is success. initialize runs once, before there is an
   * item, and every item begins with a copy of the memory that it leaves. reseed
   * runs before each item, to make anew what initialize made of random numbers.
   * shutdown runs after each item that ended well. */
  int (*initialize)(void);
  int (*reseed)(void);
  int (*shutdown)(void);
  const beacon_example *warm_up; /* or NULL */
} beacon_provider;

/* Makes a provider that of this module. Use it once, at file level. */
#define BEACON_SERVE(provider) const beacon_provider *const beacon_served = &(provider);
#ifdef __cplusplus
extern const beacon_provider *const beacon_served;
#endif

/* ---- Errors -------------------------------------------------------------- */

typedef enum {
  BEACON_OK,
  BEACON_FAULT,
  BEACON_INVALID,
  BEACON_NOT_FOUND,
  BEACON_RANGE,
  BEACON_DENIED, /* not permitted */
  BEACON_LIMIT,
  BEACON_CANCELED,
  BEACON_IO,
  BEACON_BAD_DESCRIPTOR,
  BEACON_EXISTS,
  BEACON_NOT_NOW,
  BEACON_NETWORK,
  BEACON_TIMEOUT,
  BEACON_FAILED /* the provider that was called failed */
} beacon_errno;

/* The text noted last, about the last function that failed. */
const char *beacon_error(void);

/* Notes the text, formatted as by printf, that the item fails with, and returns
 * what the action is to return: return beacon_fail("no colour %s", name). */
int beacon_fail(const char *format, ...) __attribute__((format(printf, 1, 2)));

/* Makes the item end with a result and not as failed: with this exit code, and
 * the text as StdOut unless that is set. It is for work that was done and came
 * out badly; servers do not try such items again. Returns what the action is to
 * return. */
int beacon_exit(int code, const char *format, ...) __attribute__((format(printf, 2, 3)));

/* Ends the module on the spot, for what must never happen: the item has failed
 * with the text, and its log says where. */
void beacon_panic(const char *format, ...) __attribute__((noreturn, format(printf, 1, 2)));

/* ---- The item ------------------------------------------------------------ */

/* The request. Text is "" where there is none. */
typedef struct {
  const char *hash, *capability, *action, *operation_hash, *run_id;
  int attempt;                           /* counts from 1; 0 when the server does not count */
  const char *source_path, *output_path; /* absolute */
} beacon_work_item;

const beacon_work_item *beacon_item(void);

/* Settings that the action declares, or their defaults. Another name is a
 * mistake in the provider, and a panic. length may be NULL. */
const char *beacon_text_of(const char *name, size_t *length);
const char *beacon_text(const char *name);
int64_t beacon_int(const char *name);
double beacon_number(const char *name);
int beacon_bool(const char *name);

/* Any setting as text: what is in a JSON string, the JSON of anything else. NULL
 * when it is absent or null, or cannot be read (then beacon_error says why). */
char *beacon_lookup(const char *name, size_t *length);
/* All settings as a JSON object, as the server sent them; NULL for an error. */
char *beacon_settings(size_t *length);
/* A value of the configuration that the operator gave to the provider, in the
 * form of beacon_lookup; all of it for the name "". */
char *beacon_config(const char *name, size_t *length);

/* ---- Reporting ----------------------------------------------------------- */

/* How far the item has come, in percent; BEACON_UNKNOWN when that is not known.
 * Call it as often as you like: the host throttles. */
#define BEACON_UNKNOWN (__builtin_nan(""))
void beacon_progress(double percent, const char *message);
/* The step, of total, that begins; it counts from 1. */
void beacon_step(int step, int total, const char *message);

/* Lines for the item's log, which the server gets. */
typedef enum { BEACON_LEVEL_DEBUG, BEACON_LEVEL_INFO, BEACON_LEVEL_WARNING, BEACON_LEVEL_ERROR } beacon_level;
void beacon_log_text(beacon_level level, const char *text, size_t length);
void beacon_log(const char *format, ...) __attribute__((format(printf, 1, 2)));
void beacon_debug(const char *format, ...) __attribute__((format(printf, 1, 2)));
void beacon_warn(const char *format, ...) __attribute__((format(printf, 1, 2)));

/* Outputs. Setting one again replaces it. One that cannot be set fails the item,
 * so results need not be looked at. Bytes become base64. */
int beacon_set_text(const char *name, const char *text, size_t length);
int beacon_set(const char *name, const char *text);
int beacon_set_int(const char *name, int64_t value);
int beacon_set_number(const char *name, double value);
int beacon_set_bool(const char *name, int value);
int beacon_set_null(const char *name);
int beacon_set_bytes(const char *name, const void *data, size_t size);
int beacon_set_texts(const char *name, const char *const *texts, size_t count);
int beacon_set_json(const char *name, const char *json, size_t length);
int beacon_result(const char *text);  /* the primary output, Result */
int beacon_std_out(const char *text); /* text for people */

/* ---- Time and random numbers --------------------------------------------- */

/* Milliseconds until the item's deadline; -1 when it has none. */
int64_t beacon_remaining(void);
/* True once the host wants the item to end and leaves it a moment to do so.
 * Items that run for long ask now and then. */
int beacon_cancelled(void);
int64_t beacon_now(void);       /* nanoseconds since 1970 */
int64_t beacon_monotonic(void); /* nanoseconds since some moment, never backwards */
int beacon_random(void *data, size_t size);
void beacon_sleep(int64_t milliseconds);

/* ---- Files --------------------------------------------------------------- */

/* Files of the item's directory. Names are relative to it, with slashes. What is
 * open when the item ends is closed then. stdio works as well, under /work. */
typedef struct {
  uint32_t descriptor;
  int64_t size;  /* when it was opened */
  int64_t count; /* bytes read or written */
  const char *name;
} beacon_file;

#define BEACON_READ 1
#define BEACON_WRITE 2
#define BEACON_CREATE 4
#define BEACON_TRUNCATE 8
#define BEACON_APPEND 16
#define BEACON_EXCLUSIVE 32 /* fail if it exists */

int beacon_open_source(beacon_file *f);   /* the source staged for the item */
int beacon_create_output(beacon_file *f); /* the file that the item is to leave behind */
int beacon_open(beacon_file *f, const char *name);
int beacon_create(beacon_file *f, const char *name);
int beacon_open_file(beacon_file *f, const char *name, unsigned flags);
/* Reads on; *n is 0 at the end. */
int beacon_read(beacon_file *f, void *data, size_t size, size_t *n);
/* Writes all of it. */
int beacon_write(beacon_file *f, const void *data, size_t size);
/* Whence as for fseek: 0 start, 1 current, 2 end. position may be NULL. */
int beacon_seek(beacon_file *f, int64_t offset, int whence, int64_t *position);
int beacon_size(beacon_file *f, int64_t *size);
int beacon_close(beacon_file *f);
/* How much of it was read, for beacon_progress. */
double beacon_percent(const beacon_file *f);

/* All of the source; NULL for an error. */
char *beacon_read_source(size_t *length);
int beacon_write_output(const void *data, size_t size);

/* A directory as a JSON array of {"Name","Size","Directory"}; "." is the item's.
 * NULL for an error. */
char *beacon_list(const char *name, size_t *length);
int beacon_remove(const char *name);
int beacon_rename(const char *from, const char *to);
int beacon_make_directory(const char *name);

/* ---- HTTP ---------------------------------------------------------------- */

/* A request. Unset members mean the defaults. */
typedef struct {
  const char *url;
  const char *method;         /* NULL is GET */
  const beacon_pair *headers; /* ended by one without a name; values may hold BEACON_SECRET */
  const void *body;           /* sent when the request is; NULL for none */
  size_t body_size;
  /* Instead of body: the number of bytes that beacon_send_body is going to send,
   * -1 when that is not known. */
  int64_t stream;
  int64_t timeout_ms; /* of the exchange, reading included; 0 is the item's */
  int no_redirects;   /* makes a redirect a response like any other */
} beacon_request;

/* Stands for a secret that the operator granted, in the value of a header:
 * "Bearer " BEACON_SECRET("translator"). The host puts it in its place, for the
 * hosts that it is meant for; a provider never sees it. */
#define BEACON_SECRET(name) "{{secret:" name "}}"
/* True when the operator granted the secret. */
int beacon_has_secret(const char *name);

/* A request that is under way, and its response. */
typedef struct {
  uint32_t handle;
  const char *url;
  int status; /* once beacon_wait_response has returned 0 */
} beacon_exchange;

/* Makes a request and waits for its response, whatever its status. */
int beacon_fetch(beacon_exchange *x, const beacon_request *request);
/* Only starts it, so that several can be under way. */
int beacon_send(beacon_exchange *x, const beacon_request *request);
/* Sends on the body. *wanted, which may be NULL, is 0 when the server has
 * answered already and wants no more of it. */
int beacon_send_body(beacon_exchange *x, const void *data, size_t size, int *wanted);
int beacon_wait_response(beacon_exchange *x);
/* The values of a header, joined with ", "; NULL when there is none. */
char *beacon_header(beacon_exchange *x, const char *name);
/* The head of the response as JSON: Status, URL, Proto, Headers, Length. */
char *beacon_response(beacon_exchange *x, size_t *length);
int beacon_read_body(beacon_exchange *x, void *data, size_t size, size_t *n);
/* The rest of the body; closes the exchange. NULL for an error. */
char *beacon_body(beacon_exchange *x, size_t *length);
int beacon_close_exchange(beacon_exchange *x);

/* ---- Calls --------------------------------------------------------------- */

/* Asks another capability of the beacon for an action. */
typedef enum { BEACON_DROP, BEACON_FORWARD, BEACON_KEEP } beacon_callee_progress;
typedef struct {
  const char *capability;
  const char *action;         /* NULL is the capability's first */
  const beacon_pair *texts;   /* settings that are text, ended by one without a name */
  const char *settings;       /* or all settings as a JSON object */
  const char *source;         /* a file of the item's that the callee gets a copy of */
  const char *output;         /* where the callee's output goes */
  int64_t timeout_ms;
  beacon_callee_progress progress; /* KEEP is for beacon_call_progress */
} beacon_call;

/* A call that is under way, and its outcome. */
typedef struct {
  uint32_t handle;
  char name[160];
} beacon_running;

/* Carries out a call and waits for it. A callee that did its work with a non-zero
 * exit code is no error: see beacon_call_exit_code. Close what was begun. */
int beacon_run_call(beacon_running *r, const beacon_call *call);
int beacon_begin_call(beacon_running *r, const beacon_call *call);
/* Waits for the next kept message of the callee, a JSON object; NULL when there
 * is no more. beacon_member reads it. */
char *beacon_call_progress(beacon_running *r, size_t *length);
int beacon_wait_call(beacon_running *r);
/* Outputs, Log and Error as a JSON object. */
char *beacon_call_result(beacon_running *r, size_t *length);
/* One output as text, NULL when there is none. */
char *beacon_call_output(beacon_running *r, const char *name, size_t *length);
int beacon_call_exit_code(beacon_running *r);
int beacon_close_call(beacon_running *r);

/* Waits until one of the requests and calls with these handles can go on, and
 * stores its place; stores count when the time, in milliseconds, is over first.
 * A negative time has no end but the item's. */
int beacon_wait_any(const uint32_t *handles, size_t count, int64_t milliseconds, size_t *index);

/* ---- JSON ---------------------------------------------------------------- */

/* One member of a JSON object that the host sent, in the form of beacon_lookup;
 * NULL when it is absent or null. */
char *beacon_member(const char *json, size_t json_length, const char *name, size_t *length);

#ifdef __cplusplus
}
#endif
#endif /* BEACON_H */

/* ========================================================================== */

#if defined(BEACON_IMPLEMENTATION) && !defined(BEACON_IMPLEMENTED)
#define BEACON_IMPLEMENTED

#include <math.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#ifdef __cplusplus
extern "C" {
#endif

/* The functions of beacon_v1. The linker drops those that nothing reaches. */
#define BEACON_IMPORT(name) __attribute__((import_module("beacon_v1"), import_name(name)))
BEACON_IMPORT("work_item") uint32_t beacon_import_work_item(void *buf, size_t cap, uint32_t *len);
BEACON_IMPORT("settings") uint32_t beacon_import_settings(void *buf, size_t cap, uint32_t *len);
BEACON_IMPORT("setting") uint32_t beacon_import_setting(const char *name, size_t name_len, void *buf, size_t cap, uint32_t *len);
BEACON_IMPORT("config") uint32_t beacon_import_config(const char *name, size_t name_len, void *buf, size_t cap, uint32_t *len);
BEACON_IMPORT("progress") uint32_t beacon_import_progress(double percent, int32_t step, int32_t total, const char *message, size_t len);
BEACON_IMPORT("log") uint32_t beacon_import_log(int32_t level, const char *text, size_t len);
BEACON_IMPORT("output") uint32_t beacon_import_output(const char *name, size_t name_len, const char *json, size_t len);
BEACON_IMPORT("fail") uint32_t beacon_import_fail(const char *message, size_t len);
BEACON_IMPORT("describe") uint32_t beacon_import_describe(const char *json, size_t len);
BEACON_IMPORT("last_error") uint32_t beacon_import_last_error(void *buf, size_t cap, uint32_t *len);
BEACON_IMPORT("remaining") uint32_t beacon_import_remaining(uint64_t *milliseconds);
BEACON_IMPORT("cancelled") uint32_t beacon_import_cancelled(void);
BEACON_IMPORT("now") uint32_t beacon_import_now(int32_t clock, uint64_t *nanoseconds);
BEACON_IMPORT("random") uint32_t beacon_import_random(void *buf, size_t len);
BEACON_IMPORT("file_open") uint32_t beacon_import_file_open(const char *path, size_t len, uint32_t flags, uint32_t *fd);
BEACON_IMPORT("file_read") uint32_t beacon_import_file_read(uint32_t fd, void *buf, size_t cap, uint32_t *n);
BEACON_IMPORT("file_write") uint32_t beacon_import_file_write(uint32_t fd, const void *data, size_t len, uint32_t *n);
BEACON_IMPORT("file_seek") uint32_t beacon_import_file_seek(uint32_t fd, int64_t offset, int32_t whence, uint64_t *position);
BEACON_IMPORT("file_size") uint32_t beacon_import_file_size(uint32_t fd, uint64_t *size);
BEACON_IMPORT("file_close") uint32_t beacon_import_file_close(uint32_t fd);
BEACON_IMPORT("file_list") uint32_t beacon_import_file_list(const char *path, size_t path_len, void *buf, size_t cap, uint32_t *len);
BEACON_IMPORT("file_remove") uint32_t beacon_import_file_remove(const char *path, size_t len);
BEACON_IMPORT("file_rename") uint32_t beacon_import_file_rename(const char *from, size_t from_len, const char *to, size_t to_len);
BEACON_IMPORT("file_make_directory") uint32_t beacon_import_file_make_directory(const char *path, size_t len);
BEACON_IMPORT("handle_wait") uint32_t beacon_import_handle_wait(const uint32_t *handles, size_t len, int64_t milliseconds, uint32_t *index);
BEACON_IMPORT("handle_close") uint32_t beacon_import_handle_close(uint32_t handle);
BEACON_IMPORT("http_open") uint32_t beacon_import_http_open(const char *request, size_t len, uint32_t *handle);
BEACON_IMPORT("http_write") uint32_t beacon_import_http_write(uint32_t handle, const void *data, size_t len, uint32_t *n);
BEACON_IMPORT("http_wait") uint32_t beacon_import_http_wait(uint32_t handle, uint32_t *status);
BEACON_IMPORT("http_response") uint32_t beacon_import_http_response(uint32_t handle, void *buf, size_t cap, uint32_t *len);
BEACON_IMPORT("http_header") uint32_t beacon_import_http_header(uint32_t handle, const char *name, size_t name_len, void *buf, size_t cap, uint32_t *len);
BEACON_IMPORT("http_read") uint32_t beacon_import_http_read(uint32_t handle, void *buf, size_t cap, uint32_t *n);
BEACON_IMPORT("call_open") uint32_t beacon_import_call_open(const char *request, size_t len, uint32_t *handle);
BEACON_IMPORT("call_progress") uint32_t beacon_import_call_progress(uint32_t handle, void *buf, size_t cap, uint32_t *len);
BEACON_IMPORT("call_wait") uint32_t beacon_import_call_wait(uint32_t handle);
BEACON_IMPORT("call_result") uint32_t beacon_import_call_result(uint32_t handle, void *buf, size_t cap, uint32_t *len);
BEACON_IMPORT("call_output") uint32_t beacon_import_call_output(uint32_t handle, const char *name, size_t name_len, void *buf, size_t cap, uint32_t *len);
BEACON_IMPORT("secret") uint32_t beacon_import_secret(const char *name, size_t len);

/* What BEACON_SERVE defines. */
extern const beacon_provider *const beacon_served;

static struct {
  char error[4096];
  char output_error[512]; /* of the first output that could not be set */
  int exited, exit_code, has_std_out;
  beacon_work_item item;
  const beacon_action *action;
  char **values; /* by setting of the action */
  size_t *lengths;
} beacon_state;

static const char *beacon_or(const char *text) { return text ? text : ""; }

static void *beacon_alloc(size_t size) {
  void *p = malloc(size);
  if (!p) beacon_panic("out of memory: %zu bytes more are not to be had", size);
  return p;
}

/* -- errors -- */

static const char *beacon_errno_name(uint32_t e) {
  static const char *const names[] = {
      "no error", "bad pointer", "invalid parameter", "not found", "buffer too small", "not permitted",
      "over a limit of size or number", "the item is being cancelled", "the host or its file system failed",
      "not an open file or handle", "exists already", "not possible now", "the other side cannot be reached or broke off",
      "the time given is over", "the provider that was called failed"};
  return e < sizeof names / sizeof *names ? names[e] : "unknown error of the host";
}

const char *beacon_error(void) { return beacon_state.error; }

static int beacon_refused(uint32_t e, const char *what, const char *name) {
  if (e == BEACON_OK) return 0;
  char text[2048];
  uint32_t length = 0;
  if (beacon_import_last_error(text, sizeof text - 1, &length) == BEACON_OK && length > 0) {
    text[length] = 0;
  } else {
    snprintf(text, sizeof text, "%s", beacon_errno_name(e));
  }
  snprintf(beacon_state.error, sizeof beacon_state.error, "%s%s%s: %s", what, *name ? " " : "", name, text);
  return (int)e;
}

int beacon_fail(const char *format, ...) {
  char text[sizeof beacon_state.error]; /* what is noted may be among the arguments */
  va_list args;
  va_start(args, format);
  vsnprintf(text, sizeof text, format, args);
  va_end(args);
  memcpy(beacon_state.error, text, sizeof text);
  return BEACON_FAILED;
}

int beacon_exit(int code, const char *format, ...) {
  char text[sizeof beacon_state.error];
  va_list args;
  va_start(args, format);
  vsnprintf(text, sizeof text, format, args);
  va_end(args);
  memcpy(beacon_state.error, text, sizeof text);
  beacon_state.exited = 1;
  beacon_state.exit_code = code;
  return -1;
}

void beacon_panic(const char *format, ...) {
  static char text[2048];
  va_list args;
  size_t n = 0;
  if (beacon_state.action) n = (size_t)snprintf(text, sizeof text / 2, "panic in action %s: ", beacon_state.action->name);
  va_start(args, format);
  vsnprintf(text + n, sizeof text - n, format, args);
  va_end(args);
  beacon_import_fail(text, strlen(text));
  __builtin_trap();
}

/* The text in quotes, short and on one line, for a message. */
static const char *beacon_excerpt(const char *text, size_t length) {
  enum { most = 80 };
  static char out[most * 4 + 8];
  size_t n = 0, end = length < most ? length : most;
  out[n++] = '"';
  for (size_t i = 0; i < end; i++) {
    unsigned char c = (unsigned char)text[i];
    const char *escaped = c == '"' ? "\\\"" : c == '\\' ? "\\\\" : c == '\n' ? "\\n" : c == '\r' ? "\\r" : c == '\t' ? "\\t" : NULL;
    if (escaped) {
      out[n++] = escaped[0];
      out[n++] = escaped[1];
    } else if (c < ' ' || c == 0x7f) {
      n += (size_t)snprintf(out + n, 5, "\\x%02x", c);
    } else {
      out[n++] = (char)c;
    }
  }
  strcpy(out + n, length > most ? "\"\xe2\x80\xa6" : "\"");
  return out;
}

/* -- JSON -- */

typedef struct {
  char *data;
  size_t length, capacity;
} beacon_buffer;

static void beacon_put(beacon_buffer *b, const char *data, size_t length) {
  if (b->length + length + 1 > b->capacity) {
    size_t capacity = b->capacity * 2 + length + 128;
    char *grown = (char *)realloc(b->data, capacity);
    if (!grown) beacon_panic("out of memory: %zu bytes more are not to be had", capacity);
    b->data = grown;
    b->capacity = capacity;
  }
  memcpy(b->data + b->length, data, length);
  b->length += length;
  b->data[b->length] = 0;
}

static void beacon_puts(beacon_buffer *b, const char *text) { beacon_put(b, text, strlen(text)); }

/* The length of the UTF-8 sequence at p, 0 if there is none. */
static size_t beacon_sequence(const unsigned char *p, size_t left) {
  unsigned char c = p[0];
  size_t n = c < 0x80 ? 1 : c >= 0xc2 && c < 0xe0 ? 2 : c >= 0xe0 && c < 0xf0 ? 3 : c >= 0xf0 && c < 0xf5 ? 4 : 0;
  if (n > left) return 0;
  for (size_t i = 1; i < n; i++) {
    if ((p[i] & 0xc0) != 0x80) return 0;
  }
  if ((c == 0xe0 && p[1] < 0xa0) || (c == 0xed && p[1] >= 0xa0) || (c == 0xf0 && p[1] < 0x90) || (c == 0xf4 && p[1] >= 0x90)) return 0;
  return n;
}

/* Text as a JSON string. A byte that is not UTF-8 becomes U+FFFD. */
static void beacon_put_string(beacon_buffer *b, const char *text, size_t length) {
  beacon_puts(b, "\"");
  size_t start = 0, i = 0;
  while (i < length) {
    unsigned char c = (unsigned char)text[i];
    if (c >= ' ' && c != '"' && c != '\\') {
      size_t n = beacon_sequence((const unsigned char *)text + i, length - i);
      if (n) {
        i += n;
        continue;
      }
    }
    beacon_put(b, text + start, i - start);
    if (c >= 0x80) {
      beacon_puts(b, "\xef\xbf\xbd");
    } else {
      char escaped[8];
      snprintf(escaped, sizeof escaped, c == '"' || c == '\\' ? "\\%c" : "\\u%04x", c);
      beacon_puts(b, escaped);
    }
    start = ++i;
  }
  beacon_put(b, text + start, length - start);
  beacon_puts(b, "\"");
}

static void beacon_put_member(beacon_buffer *b, const char *name, const char *text) {
  if (b->data[b->length - 1] != '{') beacon_puts(b, ",");
  beacon_put_string(b, name, strlen(name));
  beacon_puts(b, ":");
  beacon_put_string(b, text, strlen(text));
}

static void beacon_put_raw_member(beacon_buffer *b, const char *name, const char *json) {
  if (b->data[b->length - 1] != '{') beacon_puts(b, ",");
  beacon_put_string(b, name, strlen(name));
  beacon_puts(b, ":");
  beacon_puts(b, json);
}

static void beacon_put_int_member(beacon_buffer *b, const char *name, int64_t value) {
  char text[24];
  snprintf(text, sizeof text, "%lld", (long long)value);
  beacon_put_raw_member(b, name, text);
}

static void beacon_put_pairs(beacon_buffer *b, const char *name, const beacon_pair *pairs) {
  beacon_put_raw_member(b, name, "{");
  for (; pairs && pairs->name; pairs++) beacon_put_member(b, pairs->name, beacon_or(pairs->value));
  beacon_puts(b, "}");
}

static void beacon_put_number(beacon_buffer *b, double value) {
  char text[32];
  for (int digits = 15; digits <= 17; digits++) { /* the shortest that is exact */
    snprintf(text, sizeof text, "%.*g", digits, value);
    if (strtod(text, NULL) == value) break;
  }
  beacon_puts(b, text);
}

static const char *beacon_space(const char *p, const char *end) {
  while (p < end && (*p == ' ' || *p == '\t' || *p == '\n' || *p == '\r')) p++;
  return p;
}

/* The end of the value at p, which the host has written, so that it is JSON. */
static const char *beacon_value_end(const char *p, const char *end) {
  int depth = 0, quoted = 0;
  for (; p < end; p++) {
    if (quoted) {
      if (*p == '\\') {
        p++;
      } else if (*p == '"') {
        quoted = 0;
        if (depth == 0) return p + 1;
      }
    } else if (*p == '"') {
      quoted = 1;
    } else if (*p == '{' || *p == '[') {
      depth++;
    } else if (*p == '}' || *p == ']') {
      if (depth == 0) return p;
      if (--depth == 0) return p + 1;
    } else if (depth == 0 && (*p == ',' || *p == ' ' || *p == '\n')) {
      return p;
    }
  }
  return end;
}

static unsigned beacon_hex4(const char *p) {
  unsigned v = 0;
  for (int i = 0; i < 4; i++) {
    char c = p[i];
    v = v << 4 | (unsigned)(c <= '9' ? c - '0' : (c | 0x20) - 'a' + 10);
  }
  return v;
}

/* The text of a JSON value. */
static char *beacon_value_text(const char *p, const char *end, size_t *length) {
  char *out = (char *)beacon_alloc((size_t)(end - p) + 1);
  size_t n = 0;
  if (p < end && *p == '"') {
    for (p++, end--; p < end; p++) {
      if (*p != '\\' || p + 1 >= end) {
        out[n++] = *p;
        continue;
      }
      unsigned c = 0;
      switch (*++p) {
      case 'n': out[n++] = '\n'; continue;
      case 't': out[n++] = '\t'; continue;
      case 'r': out[n++] = '\r'; continue;
      case 'b': out[n++] = '\b'; continue;
      case 'f': out[n++] = '\f'; continue;
      case 'u':
        if (end - p < 5) continue;
        c = beacon_hex4(p + 1);
        p += 4;
        if (c >= 0xd800 && c < 0xdc00 && end - p > 6 && p[1] == '\\' && p[2] == 'u') {
          unsigned low = beacon_hex4(p + 3);
          if (low >= 0xdc00 && low < 0xe000) {
            c = 0x10000 + ((c - 0xd800) << 10) + (low - 0xdc00);
            p += 6;
          }
        }
        if (c >= 0xd800 && c < 0xe000) c = 0xfffd;
        if (c < 0x80) {
          out[n++] = (char)c;
        } else if (c < 0x800) {
          out[n++] = (char)(0xc0 | c >> 6);
          out[n++] = (char)(0x80 | (c & 63));
        } else if (c < 0x10000) {
          out[n++] = (char)(0xe0 | c >> 12);
          out[n++] = (char)(0x80 | (c >> 6 & 63));
          out[n++] = (char)(0x80 | (c & 63));
        } else {
          out[n++] = (char)(0xf0 | c >> 18);
          out[n++] = (char)(0x80 | (c >> 12 & 63));
          out[n++] = (char)(0x80 | (c >> 6 & 63));
          out[n++] = (char)(0x80 | (c & 63));
        }
        continue;
      default: out[n++] = *p;
      }
    }
  } else {
    n = (size_t)(end - p);
    memcpy(out, p, n);
  }
  out[n] = 0;
  if (length) *length = n;
  return out;
}

char *beacon_member(const char *json, size_t json_length, const char *name, size_t *length) {
  const char *end = json + json_length, *p = beacon_space(json, end);
  if (length) *length = 0;
  if (p >= end || *p != '{') return NULL;
  p = beacon_space(p + 1, end);
  while (p < end && *p == '"') {
    const char *name_end = beacon_value_end(p, end);
    char *key = beacon_value_text(p, name_end, NULL);
    int found = strcmp(key, name) == 0;
    free(key);
    p = beacon_space(name_end, end);
    p = beacon_space(p + 1, end); /* the colon */
    const char *value_end = beacon_value_end(p, end);
    if (found) return value_end - p == 4 && memcmp(p, "null", 4) == 0 ? NULL : beacon_value_text(p, value_end, length);
    p = beacon_space(value_end, end);
    if (p < end && *p == ',') p = beacon_space(p + 1, end);
  }
  return NULL;
}

/* -- text from the host -- */

/* One call that fills a buffer; which one is decided by the arguments. */
typedef struct {
  uint32_t (*plain)(void *, size_t, uint32_t *);
  uint32_t (*named)(const char *, size_t, void *, size_t, uint32_t *);
  uint32_t (*handled)(uint32_t, void *, size_t, uint32_t *);
  uint32_t (*both)(uint32_t, const char *, size_t, void *, size_t, uint32_t *);
  uint32_t handle;
  const char *name;
} beacon_source;

static uint32_t beacon_fill_once(const beacon_source *s, void *buf, size_t cap, uint32_t *len) {
  if (s->plain) return s->plain(buf, cap, len);
  if (s->named) return s->named(s->name, strlen(s->name), buf, cap, len);
  if (s->handled) return s->handled(s->handle, buf, cap, len);
  return s->both(s->handle, s->name, strlen(s->name), buf, cap, len);
}

/* Calls until the buffer is large enough. */
static uint32_t beacon_fill(const beacon_source *s, char **text, size_t *length) {
  size_t cap = 512;
  *text = NULL;
  if (length) *length = 0;
  for (;;) {
    char *buf = (char *)beacon_alloc(cap + 1);
    uint32_t n = 0, e = beacon_fill_once(s, buf, cap, &n);
    if (e == BEACON_OK) {
      buf[n] = 0;
      if (length) *length = n;
      *text = buf;
      return e;
    }
    free(buf);
    if (e != BEACON_RANGE || n <= cap) return e;
    cap = n;
  }
}

static beacon_source beacon_plain(uint32_t (*f)(void *, size_t, uint32_t *)) {
  beacon_source s;
  memset(&s, 0, sizeof s);
  s.plain = f;
  return s;
}

static beacon_source beacon_named(uint32_t (*f)(const char *, size_t, void *, size_t, uint32_t *), const char *name) {
  beacon_source s;
  memset(&s, 0, sizeof s);
  s.named = f;
  s.name = name;
  return s;
}

static beacon_source beacon_handled(uint32_t (*f)(uint32_t, void *, size_t, uint32_t *), uint32_t handle) {
  beacon_source s;
  memset(&s, 0, sizeof s);
  s.handled = f;
  s.handle = handle;
  return s;
}

static beacon_source beacon_both(uint32_t (*f)(uint32_t, const char *, size_t, void *, size_t, uint32_t *), uint32_t handle, const char *name) {
  beacon_source s;
  memset(&s, 0, sizeof s);
  s.both = f;
  s.handle = handle;
  s.name = name;
  return s;
}

/* NULL, with a text noted if it is an error. */
static char *beacon_filled(const beacon_source *s, size_t *length, const char *what, const char *name) {
  char *text;
  uint32_t e = beacon_fill(s, &text, length);
  if (e == BEACON_NOT_FOUND) {
    beacon_state.error[0] = 0;
  } else {
    beacon_refused(e, what, name);
  }
  return text;
}

/* -- settings -- */

static int beacon_is_number(const char *s) {
  size_t digits = 0;
  if (*s == '+' || *s == '-') s++;
  for (; *s >= '0' && *s <= '9'; s++) digits++;
  if (*s == '.') {
    for (s++; *s >= '0' && *s <= '9'; s++) digits++;
  }
  if (digits == 0) return 0;
  if (*s == 'e' || *s == 'E') {
    s++;
    if (*s == '+' || *s == '-') s++;
    if (*s < '0' || *s > '9') return 0;
    while (*s >= '0' && *s <= '9') s++;
  }
  return *s == 0;
}

static int beacon_parse_number(const char *s, double *value) {
  if (!beacon_is_number(s)) return 0;
  *value = strtod(s, NULL);
  return isfinite(*value);
}

/* Servers write large whole numbers as 1e+21, and people write 10.0: what a
 * double holds exactly is fine, too. */
static int beacon_parse_int(const char *s, int64_t *value) {
  const char *p = s;
  int negative = *p == '-';
  if (*p == '+' || *p == '-') p++;
  uint64_t n = 0, most = negative ? (uint64_t)1 << 63 : ((uint64_t)1 << 63) - 1;
  int ok = *p != 0;
  for (; ok && *p; p++) {
    unsigned digit = (unsigned)(*p - '0');
    if (digit > 9 || n > (most - digit) / 10) {
      ok = 0;
    } else {
      n = n * 10 + digit;
    }
  }
  if (ok) {
    *value = (int64_t)(negative ? 0 - n : n);
    return 1;
  }
  double d;
  if (beacon_parse_number(s, &d) && fabs(d) < 9007199254740992.0 && d == trunc(d)) {
    *value = (int64_t)d;
    return 1;
  }
  return 0;
}

static int beacon_parse_bool(const char *s, int *value) {
  static const char *const yes[] = {"1", "t", "T", "TRUE", "true", "True"}, *const no[] = {"0", "f", "F", "FALSE", "false", "False"};
  for (int i = 0; i < 6; i++) {
    if (strcmp(s, yes[i]) == 0 || strcmp(s, no[i]) == 0) {
      *value = strcmp(s, yes[i]) == 0;
      return 1;
    }
  }
  return 0;
}

/* Whether the setting may have this value, which is not "". prefix goes before
 * the message. */
static int beacon_check(const beacon_setting *s, const char *text, size_t length, const char *prefix) {
  int64_t i;
  double d;
  int b;
  const char *want = NULL;
  char options[1024];
  int whole = strlen(text) == length; /* no byte 0 in it */
  if (s->type == BEACON_NUMBER && !(whole && beacon_parse_number(text, &d))) want = "a number";
  if (s->type == BEACON_INTEGER && !(whole && beacon_parse_int(text, &i))) want = "a whole number";
  if (s->type == BEACON_BOOLEAN && !(whole && beacon_parse_bool(text, &b))) want = "true or false";
  if (!want && s->options && s->options[0]) {
    size_t n = (size_t)snprintf(options, sizeof options, "one of ");
    want = options;
    for (const char *const *o = s->options; *o; o++) {
      if (whole && strcmp(*o, text) == 0) return 0;
      if (n < sizeof options) n += (size_t)snprintf(options + n, sizeof options - n, "%s%s", o == s->options ? "" : ", ", *o);
    }
  }
  return want ? beacon_fail("%ssetting %s is %s: want %s", prefix, s->name, beacon_excerpt(text, length), want) : 0;
}

static size_t beacon_setting_index(const char *name) {
  size_t i = 0;
  for (const beacon_setting *s = beacon_state.action ? beacon_state.action->settings : NULL; s && s->name; s++, i++) {
    if (strcmp(s->name, name) == 0) return i;
  }
  beacon_panic("setting %s is not among the settings of action %s: declare it, or use beacon_lookup", name,
               beacon_state.action ? beacon_state.action->name : "(none)");
}

const char *beacon_text_of(const char *name, size_t *length) {
  size_t i = beacon_setting_index(name);
  if (length) *length = beacon_state.lengths[i];
  return beacon_state.values[i];
}

const char *beacon_text(const char *name) { return beacon_text_of(name, NULL); }

int64_t beacon_int(const char *name) {
  int64_t value = 0;
  const char *text = beacon_text(name);
  if (*text && !beacon_parse_int(text, &value)) beacon_panic("setting %s is not of type BEACON_INTEGER", name);
  return value;
}

double beacon_number(const char *name) {
  double value = 0;
  const char *text = beacon_text(name);
  if (*text && !beacon_parse_number(text, &value)) beacon_panic("setting %s is not of type BEACON_NUMBER", name);
  return value;
}

int beacon_bool(const char *name) {
  int value = 0;
  const char *text = beacon_text(name);
  if (*text && !beacon_parse_bool(text, &value)) beacon_panic("setting %s is not of type BEACON_BOOLEAN", name);
  return value;
}

char *beacon_lookup(const char *name, size_t *length) {
  beacon_source s = beacon_named(beacon_import_setting, name);
  return beacon_filled(&s, length, "read setting", name);
}

char *beacon_settings(size_t *length) {
  beacon_source s = beacon_plain(beacon_import_settings);
  return beacon_filled(&s, length, "read the settings", "");
}

char *beacon_config(const char *name, size_t *length) {
  beacon_source s = beacon_named(beacon_import_config, name);
  return beacon_filled(&s, length, "read configuration", name);
}

const beacon_work_item *beacon_item(void) { return &beacon_state.item; }

/* -- reporting -- */

void beacon_progress(double percent, const char *message) { beacon_import_progress(percent, 0, 0, beacon_or(message), strlen(beacon_or(message))); }

void beacon_step(int step, int total, const char *message) {
  double percent = total > 0 ? (double)(step - 1) / total * 100 : BEACON_UNKNOWN;
  beacon_import_progress(percent, step, total, beacon_or(message), strlen(beacon_or(message)));
}

void beacon_log_text(beacon_level level, const char *text, size_t length) {
  enum { most = 64 << 10 };
  while (length > most) { /* the host cuts longer calls, so this does first, between lines */
    size_t cut = most;
    while (cut > 0 && text[cut - 1] != '\n') cut--;
    if (cut == 0) cut = most;
    beacon_import_log(level, text, cut);
    text += cut;
    length -= cut;
  }
  beacon_import_log(level, text, length);
}

static void beacon_log_format(beacon_level level, const char *format, va_list args) {
  char small[1024];
  va_list again;
  va_copy(again, args);
  int n = vsnprintf(small, sizeof small, format, args);
  if (n >= (int)sizeof small) {
    char *large = (char *)beacon_alloc((size_t)n + 1);
    vsnprintf(large, (size_t)n + 1, format, again);
    beacon_log_text(level, large, (size_t)n);
    free(large);
  } else if (n >= 0) {
    beacon_log_text(level, small, (size_t)n);
  }
  va_end(again);
}

void beacon_log(const char *format, ...) {
  va_list args;
  va_start(args, format);
  beacon_log_format(BEACON_LEVEL_INFO, format, args);
  va_end(args);
}

void beacon_debug(const char *format, ...) {
  va_list args;
  va_start(args, format);
  beacon_log_format(BEACON_LEVEL_DEBUG, format, args);
  va_end(args);
}

void beacon_warn(const char *format, ...) {
  va_list args;
  va_start(args, format);
  beacon_log_format(BEACON_LEVEL_WARNING, format, args);
  va_end(args);
}

static int beacon_not_set(const char *name, const char *why) {
  if (!beacon_state.output_error[0]) snprintf(beacon_state.output_error, sizeof beacon_state.output_error, "set output %s: %s", name, why);
  return beacon_fail("set output %s: %s", name, why);
}

int beacon_set_json(const char *name, const char *json, size_t length) {
  if (length == 0) return beacon_not_set(name, "it is empty, which is not JSON");
  uint32_t e = beacon_import_output(name, strlen(name), json, length);
  if (e != BEACON_OK) {
    beacon_not_set(name, beacon_errno_name(e));
    return (int)e;
  }
  if (strcmp(name, "StdOut") == 0) beacon_state.has_std_out = 1;
  return 0;
}

static int beacon_set_buffer(const char *name, beacon_buffer *b) {
  int e = beacon_set_json(name, b->data, b->length);
  free(b->data);
  return e;
}

int beacon_set_text(const char *name, const char *text, size_t length) {
  beacon_buffer b = {NULL, 0, 0};
  beacon_put_string(&b, text, length);
  return beacon_set_buffer(name, &b);
}

int beacon_set(const char *name, const char *text) { return beacon_set_text(name, text, strlen(text)); }

int beacon_set_int(const char *name, int64_t value) {
  char text[24];
  return beacon_set_json(name, text, (size_t)snprintf(text, sizeof text, "%lld", (long long)value));
}

int beacon_set_number(const char *name, double value) {
  if (!isfinite(value)) return beacon_not_set(name, "it is not a finite number, which JSON cannot say");
  beacon_buffer b = {NULL, 0, 0};
  beacon_put_number(&b, value);
  return beacon_set_buffer(name, &b);
}

int beacon_set_bool(const char *name, int value) { return value ? beacon_set_json(name, "true", 4) : beacon_set_json(name, "false", 5); }

int beacon_set_null(const char *name) { return beacon_set_json(name, "null", 4); }

int beacon_set_bytes(const char *name, const void *data, size_t size) {
  static const char digits[] = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
  const unsigned char *p = (const unsigned char *)data;
  char *out = (char *)beacon_alloc((size + 2) / 3 * 4 + 2);
  size_t n = 0;
  out[n++] = '"';
  for (size_t i = 0; i < size; i += 3) {
    uint32_t v = (uint32_t)p[i] << 16 | (i + 1 < size ? (uint32_t)p[i + 1] << 8 : 0) | (i + 2 < size ? p[i + 2] : 0);
    out[n++] = digits[v >> 18];
    out[n++] = digits[v >> 12 & 63];
    out[n++] = i + 1 < size ? digits[v >> 6 & 63] : '=';
    out[n++] = i + 2 < size ? digits[v & 63] : '=';
  }
  out[n++] = '"';
  int e = beacon_set_json(name, out, n);
  free(out);
  return e;
}

int beacon_set_texts(const char *name, const char *const *texts, size_t count) {
  beacon_buffer b = {NULL, 0, 0};
  beacon_puts(&b, "[");
  for (size_t i = 0; i < count; i++) {
    if (i) beacon_puts(&b, ",");
    beacon_put_string(&b, texts[i], strlen(texts[i]));
  }
  beacon_puts(&b, "]");
  return beacon_set_buffer(name, &b);
}

int beacon_result(const char *text) { return beacon_set("Result", text); }
int beacon_std_out(const char *text) { return beacon_set("StdOut", text); }

/* -- time -- */

int64_t beacon_remaining(void) {
  uint64_t ms = 0;
  return beacon_import_remaining(&ms) == BEACON_OK && ms <= INT64_MAX ? (int64_t)ms : -1;
}

int beacon_cancelled(void) { return beacon_import_cancelled() == BEACON_CANCELED; }

int64_t beacon_now(void) {
  uint64_t ns = 0;
  beacon_import_now(0, &ns);
  return (int64_t)ns;
}

int64_t beacon_monotonic(void) {
  uint64_t ns = 0;
  beacon_import_now(1, &ns);
  return (int64_t)ns;
}

int beacon_random(void *data, size_t size) {
  enum { most = 1 << 20 };
  for (char *p = (char *)data; size > 0;) {
    size_t n = size < most ? size : most;
    uint32_t e = beacon_import_random(p, n);
    if (e != BEACON_OK) return beacon_refused(e, "random", "");
    p += n;
    size -= n;
  }
  return 0;
}

int beacon_wait_any(const uint32_t *handles, size_t count, int64_t milliseconds, size_t *index) {
  uint32_t i = 0;
  uint32_t e = beacon_import_handle_wait(handles, count * sizeof *handles, milliseconds, &i);
  *index = i;
  return beacon_refused(e, "wait", "");
}

void beacon_sleep(int64_t milliseconds) {
  uint32_t i;
  uint32_t none = 0;
  if (milliseconds > 0) beacon_import_handle_wait(&none, 0, milliseconds, &i);
}

/* -- files -- */

int beacon_open_file(beacon_file *f, const char *name, unsigned flags) {
  memset(f, 0, sizeof *f);
  f->name = name;
  f->descriptor = UINT32_MAX;
  if (!*name) return beacon_fail("open a file: it has no name");
  uint32_t e = beacon_import_file_open(name, strlen(name), flags, &f->descriptor);
  if (e == BEACON_OK) {
    uint64_t size = 0;
    e = beacon_import_file_size(f->descriptor, &size);
    f->size = (int64_t)size;
  } else {
    f->descriptor = UINT32_MAX;
  }
  return beacon_refused(e, flags & BEACON_CREATE ? "create" : "open", name);
}

int beacon_open(beacon_file *f, const char *name) { return beacon_open_file(f, name, BEACON_READ); }

int beacon_create(beacon_file *f, const char *name) { return beacon_open_file(f, name, BEACON_WRITE | BEACON_CREATE | BEACON_TRUNCATE); }

int beacon_open_source(beacon_file *f) {
  if (!*beacon_state.item.source_path) return beacon_fail("the item has no source file: give it one (setting SourceURL, or --source)");
  return beacon_open(f, beacon_state.item.source_path);
}

int beacon_create_output(beacon_file *f) {
  if (!*beacon_state.item.output_path) return beacon_fail("the item names no output file: give it one (setting OutputFilename, or --output)");
  return beacon_create(f, beacon_state.item.output_path);
}

int beacon_read(beacon_file *f, void *data, size_t size, size_t *n) {
  uint32_t read = 0;
  uint32_t e = beacon_import_file_read(f->descriptor, data, size, &read);
  *n = e == BEACON_OK ? read : 0;
  f->count += (int64_t)*n;
  return beacon_refused(e, "read", f->name);
}

int beacon_write(beacon_file *f, const void *data, size_t size) {
  for (const char *p = (const char *)data; size > 0;) {
    uint32_t n = 0;
    uint32_t e = beacon_import_file_write(f->descriptor, p, size, &n);
    if (e == BEACON_OK && n == 0) e = BEACON_IO;
    if (e != BEACON_OK) return beacon_refused(e, "write", f->name);
    p += n;
    size -= n;
    f->count += n;
  }
  return 0;
}

int beacon_seek(beacon_file *f, int64_t offset, int whence, int64_t *position) {
  uint64_t p = 0;
  uint32_t e = beacon_import_file_seek(f->descriptor, offset, whence, &p);
  if (position) *position = (int64_t)p;
  return beacon_refused(e, "seek in", f->name);
}

int beacon_size(beacon_file *f, int64_t *size) {
  uint64_t n = 0;
  uint32_t e = beacon_import_file_size(f->descriptor, &n);
  *size = (int64_t)n;
  return beacon_refused(e, "size of", f->name);
}

int beacon_close(beacon_file *f) {
  uint32_t descriptor = f->descriptor;
  f->descriptor = UINT32_MAX; /* the number may be another's from now on */
  if (descriptor == UINT32_MAX) return 0;
  return beacon_refused(beacon_import_file_close(descriptor), "close", f->name);
}

double beacon_percent(const beacon_file *f) {
  if (f->size <= 0) return BEACON_UNKNOWN;
  return f->count >= f->size ? 100 : (double)f->count / (double)f->size * 100;
}

char *beacon_read_source(size_t *length) {
  beacon_file f;
  size_t n = 0, read;
  if (length) *length = 0;
  if (beacon_open_source(&f)) return NULL;
  size_t capacity = (size_t)f.size + 1;
  char *data = (char *)beacon_alloc(capacity + 1);
  for (;;) {
    if (beacon_read(&f, data + n, capacity - n, &read)) return NULL;
    if (read == 0) break;
    n += read;
    if (n == capacity) {
      capacity *= 2;
      char *grown = (char *)realloc(data, capacity + 1);
      if (!grown) beacon_panic("out of memory: the source has more than %zu bytes", n);
      data = grown;
    }
  }
  if (beacon_close(&f)) return NULL;
  data[n] = 0;
  if (length) *length = n;
  return data;
}

int beacon_write_output(const void *data, size_t size) {
  beacon_file f;
  int e = beacon_create_output(&f);
  if (!e) e = beacon_write(&f, data, size);
  return e ? e : beacon_close(&f);
}

char *beacon_list(const char *name, size_t *length) {
  beacon_source s = beacon_named(beacon_import_file_list, name);
  char *text;
  beacon_refused(beacon_fill(&s, &text, length), "list", name);
  return text;
}

int beacon_remove(const char *name) { return beacon_refused(beacon_import_file_remove(name, strlen(name)), "remove", name); }

int beacon_rename(const char *from, const char *to) {
  return beacon_refused(beacon_import_file_rename(from, strlen(from), to, strlen(to)), "rename", from);
}

int beacon_make_directory(const char *name) {
  return beacon_refused(beacon_import_file_make_directory(name, strlen(name)), "make directory", name);
}

/* -- http -- */

static int beacon_request_refused(uint32_t e, const beacon_exchange *x) {
  return beacon_refused(e, "request", beacon_excerpt(x->url, strlen(x->url)));
}

/* Ends an exchange that has failed already, and keeps the text about that. */
static void beacon_drop(beacon_exchange *x) {
  beacon_import_handle_close(x->handle);
  x->handle = UINT32_MAX; /* the number may be another's from now on */
}

int beacon_has_secret(const char *name) { return beacon_import_secret(name, strlen(name)) == BEACON_OK; }

int beacon_send(beacon_exchange *x, const beacon_request *request) {
  beacon_buffer b = {NULL, 0, 0};
  memset(x, 0, sizeof *x);
  x->handle = UINT32_MAX;
  x->url = beacon_or(request->url);
  beacon_puts(&b, "{");
  beacon_put_member(&b, "URL", x->url);
  if (request->method && *request->method) beacon_put_member(&b, "Method", request->method);
  if (request->headers) beacon_put_pairs(&b, "Headers", request->headers);
  if (request->body) {
    beacon_put_int_member(&b, "BodyLength", (int64_t)request->body_size);
  } else if (request->stream) {
    beacon_put_int_member(&b, "BodyLength", request->stream);
  }
  if (request->timeout_ms > 0) beacon_put_int_member(&b, "TimeoutMs", request->timeout_ms);
  if (request->no_redirects) beacon_put_int_member(&b, "Redirects", 0);
  beacon_puts(&b, "}");
  uint32_t e = beacon_import_http_open(b.data, b.length, &x->handle);
  free(b.data);
  if (e != BEACON_OK) x->handle = UINT32_MAX;
  if (e == BEACON_OK && request->body) {
    int failed = beacon_send_body(x, request->body, request->body_size, NULL);
    if (failed) beacon_drop(x);
    return failed;
  }
  return beacon_request_refused(e, x);
}

int beacon_send_body(beacon_exchange *x, const void *data, size_t size, int *wanted) {
  if (wanted) *wanted = 1;
  for (const char *p = (const char *)data; size > 0;) {
    uint32_t n = 0;
    uint32_t e = beacon_import_http_write(x->handle, p, size, &n);
    if (e != BEACON_OK) return beacon_request_refused(e, x);
    if (n == 0) {
      if (wanted) *wanted = 0;
      return 0;
    }
    p += n;
    size -= n;
  }
  return 0;
}

int beacon_wait_response(beacon_exchange *x) {
  uint32_t status = 0;
  int e = beacon_request_refused(beacon_import_http_wait(x->handle, &status), x);
  if (e) beacon_drop(x);
  x->status = (int)status;
  return e;
}

int beacon_fetch(beacon_exchange *x, const beacon_request *request) {
  int e = beacon_send(x, request);
  return e ? e : beacon_wait_response(x);
}

char *beacon_header(beacon_exchange *x, const char *name) {
  beacon_source s = beacon_both(beacon_import_http_header, x->handle, name);
  return beacon_filled(&s, NULL, "header", name);
}

char *beacon_response(beacon_exchange *x, size_t *length) {
  beacon_source s = beacon_handled(beacon_import_http_response, x->handle);
  return beacon_filled(&s, length, "request", x->url);
}

int beacon_read_body(beacon_exchange *x, void *data, size_t size, size_t *n) {
  uint32_t read = 0;
  uint32_t e = beacon_import_http_read(x->handle, data, size, &read);
  *n = e == BEACON_OK ? read : 0;
  return beacon_request_refused(e, x);
}

char *beacon_body(beacon_exchange *x, size_t *length) {
  beacon_buffer b = {NULL, 0, 0};
  enum { part = 32 << 10 };
  char *buf = (char *)beacon_alloc(part);
  size_t n;
  if (length) *length = 0;
  beacon_put(&b, "", 0);
  do {
    if (beacon_read_body(x, buf, part, &n)) {
      beacon_drop(x);
      return NULL;
    }
    beacon_put(&b, buf, n);
  } while (n > 0);
  free(buf);
  if (beacon_close_exchange(x)) return NULL;
  if (length) *length = b.length;
  return b.data;
}

int beacon_close_exchange(beacon_exchange *x) {
  uint32_t handle = x->handle;
  x->handle = UINT32_MAX;
  if (handle == UINT32_MAX) return 0;
  uint32_t e = beacon_import_handle_close(handle);
  return e == BEACON_OK ? 0 : beacon_request_refused(e, x);
}

/* -- calls -- */

int beacon_begin_call(beacon_running *r, const beacon_call *call) {
  beacon_buffer b = {NULL, 0, 0};
  memset(r, 0, sizeof *r);
  r->handle = UINT32_MAX;
  snprintf(r->name, sizeof r->name, "%s%s%s", beacon_or(call->capability), call->action ? "/" : "", beacon_or(call->action));
  if (call->settings && call->texts) return beacon_fail("call %s: want texts or settings, not both", r->name);
  beacon_puts(&b, "{");
  beacon_put_member(&b, "Capability", beacon_or(call->capability));
  if (call->action) beacon_put_member(&b, "Action", call->action);
  if (call->settings) {
    beacon_put_raw_member(&b, "Settings", call->settings);
  } else {
    beacon_put_pairs(&b, "Settings", call->texts);
  }
  if (call->source && *call->source) beacon_put_member(&b, "Source", call->source);
  if (call->output && *call->output) beacon_put_member(&b, "Output", call->output);
  if (call->timeout_ms > 0) beacon_put_int_member(&b, "TimeoutMs", call->timeout_ms);
  if (call->progress != BEACON_DROP) beacon_put_member(&b, "Progress", call->progress == BEACON_FORWARD ? "forward" : "keep");
  beacon_puts(&b, "}");
  uint32_t e = beacon_import_call_open(b.data, b.length, &r->handle);
  free(b.data);
  if (e != BEACON_OK) r->handle = UINT32_MAX;
  return beacon_refused(e, "call", r->name);
}

char *beacon_call_progress(beacon_running *r, size_t *length) {
  beacon_source s = beacon_handled(beacon_import_call_progress, r->handle);
  return beacon_filled(&s, length, "call", r->name);
}

int beacon_wait_call(beacon_running *r) { return beacon_refused(beacon_import_call_wait(r->handle), "call", r->name); }

int beacon_run_call(beacon_running *r, const beacon_call *call) {
  int e = beacon_begin_call(r, call);
  return e ? e : beacon_wait_call(r);
}

char *beacon_call_result(beacon_running *r, size_t *length) {
  beacon_source s = beacon_handled(beacon_import_call_result, r->handle);
  return beacon_filled(&s, length, "call", r->name);
}

char *beacon_call_output(beacon_running *r, const char *name, size_t *length) {
  beacon_source s = beacon_both(beacon_import_call_output, r->handle, name);
  return beacon_filled(&s, length, "call", r->name);
}

int beacon_call_exit_code(beacon_running *r) {
  char *text = beacon_call_output(r, "ExitCode", NULL);
  int code = text ? atoi(text) : 0;
  free(text);
  return code;
}

int beacon_close_call(beacon_running *r) {
  uint32_t handle = r->handle;
  r->handle = UINT32_MAX;
  if (handle == UINT32_MAX) return 0;
  return beacon_refused(beacon_import_handle_close(handle), "call", r->name);
}

/* -- the provider -- */

static const beacon_action *beacon_find_action(const char *name) {
  if (!*name) return &beacon_served->actions[0];
  for (const beacon_action *a = beacon_served->actions; a->name; a++) {
    if (strcmp(a->name, name) == 0) return a;
  }
  return NULL;
}

/* What is wrong with the declaration. */
static int beacon_validate(void) {
  const beacon_provider *p = beacon_served;
  if (!p->capability || !*p->capability) return beacon_fail("the provider has no capability");
  if (!p->actions || !p->actions[0].name) return beacon_fail("capability %s has no actions", p->capability);
  if (p->warm_up && !beacon_find_action(beacon_or(p->warm_up->action))) {
    return beacon_fail("warm_up has an action %s that capability %s does not have", p->warm_up->action, p->capability);
  }
  for (const beacon_action *a = p->actions; a->name; a++) {
    if (!*a->name) return beacon_fail("capability %s has an action without a name", p->capability);
    if (beacon_find_action(a->name) != a) return beacon_fail("action %s is declared twice", a->name);
    if (!a->run) return beacon_fail("action %s has no run", a->name);
    for (const beacon_setting *s = a->settings; s && s->name; s++) {
      for (const beacon_setting *other = a->settings; other < s; other++) {
        if (strcmp(other->name, s->name) == 0) return beacon_fail("action %s declares setting %s twice", a->name, s->name);
      }
      if (s->default_value && *s->default_value) {
        char prefix[256];
        snprintf(prefix, sizeof prefix, "action %s: the default of ", a->name);
        int e = beacon_check(s, s->default_value, strlen(s->default_value), prefix);
        if (e) return e;
      }
    }
  }
  return 0;
}

static void beacon_put_example(beacon_buffer *b, const beacon_example *e) {
  beacon_put_pairs(b, "Settings", e->settings);
  beacon_put_member(b, "Source", beacon_or(e->source));
  if (e->content) beacon_put_member(b, "Content", e->content);
  beacon_put_member(b, "Output", beacon_or(e->output));
  beacon_puts(b, "}");
}

static void beacon_put_setting(beacon_buffer *b, const beacon_setting *s) {
  static const char *const types[] = {"String", "Number", "Number", "Boolean"};
  int truth;
  double number;
  beacon_puts(b, "{");
  beacon_put_member(b, "Name", s->name);
  beacon_put_member(b, "DataType", types[s->type]);
  beacon_put_raw_member(b, "Required", s->required ? "true" : "false");
  beacon_put_member(b, "Description", beacon_or(s->description));
  if (s->default_value && *s->default_value) {
    if (s->type == BEACON_BOOLEAN && beacon_parse_bool(s->default_value, &truth)) {
      beacon_put_raw_member(b, "Default", truth ? "true" : "false");
    } else if (s->type != BEACON_STRING && beacon_parse_number(s->default_value, &number)) {
      beacon_put_raw_member(b, "Default", "");
      beacon_put_number(b, number);
    } else {
      beacon_put_member(b, "Default", s->default_value);
    }
  }
  if (s->options && s->options[0]) {
    beacon_put_raw_member(b, "Options", "[");
    for (const char *const *o = s->options; *o; o++) {
      if (o != s->options) beacon_puts(b, ",");
      beacon_put_string(b, *o, strlen(*o));
    }
    beacon_puts(b, "]");
  }
  beacon_puts(b, "}");
}

static void beacon_manifest(beacon_buffer *b) {
  const beacon_provider *p = beacon_served;
  beacon_puts(b, "{");
  beacon_put_member(b, "Name", beacon_or(p->name));
  beacon_put_member(b, "Version", beacon_or(p->version));
  beacon_put_member(b, "Capability", p->capability);
  beacon_put_member(b, "Description", beacon_or(p->description));
  beacon_put_raw_member(b, "Actions", "[");
  for (const beacon_action *a = p->actions; a->name; a++) {
    beacon_puts(b, a == p->actions ? "{" : ",{");
    beacon_put_member(b, "Name", a->name);
    beacon_put_member(b, "Description", beacon_or(a->description));
    beacon_put_raw_member(b, "SettingsSchema", "[");
    for (const beacon_setting *s = a->settings; s && s->name; s++) {
      if (s != a->settings) beacon_puts(b, ",");
      beacon_put_setting(b, s);
    }
    beacon_puts(b, "]");
    if (a->example) {
      beacon_put_raw_member(b, "Example", "{");
      beacon_put_example(b, a->example);
    }
    beacon_puts(b, "}");
  }
  beacon_puts(b, "]");
  beacon_put_raw_member(b, "Permissions", "[");
  for (const beacon_permission *w = p->permissions; w && w->permission; w++) {
    beacon_puts(b, w == p->permissions ? "{" : ",{");
    beacon_put_member(b, "Permission", w->permission);
    beacon_put_member(b, "Reason", beacon_or(w->reason));
    if (w->optional) beacon_put_raw_member(b, "Optional", "true");
    beacon_puts(b, "}");
  }
  beacon_puts(b, "]");
  if (p->warm_up) {
    beacon_put_raw_member(b, "WarmUp", "{");
    beacon_put_member(b, "Action", beacon_find_action(beacon_or(p->warm_up->action))->name);
    beacon_put_example(b, p->warm_up);
  }
  beacon_puts(b, "}");
}

static int32_t beacon_answer(int e) {
  if (e == 0) return 0;
  if (!beacon_state.error[0]) snprintf(beacon_state.error, sizeof beacon_state.error, "the provider failed with the number %d", e);
  beacon_import_fail(beacon_state.error, strlen(beacon_state.error));
  return 1;
}

/* Runs a hook; its name goes before what it says. */
static int beacon_hook(const char *name, int (*hook)(void)) {
  beacon_state.error[0] = 0;
  int e = hook ? hook() : 0;
  if (e == 0) return 0;
  char text[sizeof beacon_state.error];
  snprintf(text, sizeof text, "%s: %s", name, beacon_state.error[0] ? beacon_state.error : "it failed");
  return beacon_fail("%s", text);
}

static char *beacon_item_text(const char *json, size_t length, const char *name) {
  char *text = beacon_member(json, length, name, NULL);
  return text ? text : (char *)"";
}

/* Finds the action and checks the settings. */
static int beacon_prepare(void) {
  char *json;
  size_t length;
  beacon_source source = beacon_plain(beacon_import_work_item);
  int e = beacon_refused(beacon_fill(&source, &json, &length), "read the work item", "");
  if (e) return e;
  beacon_work_item *item = &beacon_state.item;
  item->hash = beacon_item_text(json, length, "WorkItemHash");
  item->capability = beacon_item_text(json, length, "Capability");
  item->action = beacon_item_text(json, length, "Action");
  item->operation_hash = beacon_item_text(json, length, "OperationHash");
  item->run_id = beacon_item_text(json, length, "RunID");
  item->attempt = atoi(beacon_item_text(json, length, "AttemptNumber"));
  item->source_path = beacon_item_text(json, length, "SourcePath");
  item->output_path = beacon_item_text(json, length, "OutputPath");
  const beacon_action *a = beacon_find_action(item->action);
  if (!a) {
    char names[1024];
    size_t n = 0;
    for (a = beacon_served->actions; a->name && n < sizeof names; a++) {
      n += (size_t)snprintf(names + n, sizeof names - n, "%s%s", a == beacon_served->actions ? "" : ", ", a->name);
    }
    return beacon_fail("unknown action %s: %s has %s", beacon_excerpt(item->action, strlen(item->action)), beacon_served->capability, names);
  }
  item->action = a->name;
  beacon_state.action = a;
  size_t count = 0;
  for (const beacon_setting *s = a->settings; s && s->name; s++) count++;
  beacon_state.values = (char **)beacon_alloc((count + 1) * sizeof(char *));
  beacon_state.lengths = (size_t *)beacon_alloc((count + 1) * sizeof(size_t));
  for (size_t i = 0; i < count; i++) {
    const beacon_setting *s = &a->settings[i];
    char *value;
    beacon_source setting = beacon_named(beacon_import_setting, s->name);
    uint32_t errno_ = beacon_fill(&setting, &value, &length);
    if (errno_ != BEACON_OK && errno_ != BEACON_NOT_FOUND) return beacon_refused(errno_, "read setting", s->name);
    if (value && length > 0) {
      if ((e = beacon_check(s, value, length, "")) != 0) return e;
    } else if (s->required) {
      return beacon_fail("setting %s is missing: %s", s->name, beacon_or(s->description));
    } else {
      value = (char *)beacon_or(s->default_value);
      length = strlen(value);
    }
    beacon_state.values[i] = value;
    beacon_state.lengths[i] = length;
  }
  return 0;
}

static int beacon_run(void) {
  int e = beacon_validate();
  if (!e) e = beacon_hook("reseed", beacon_served->reseed);
  beacon_state.exited = beacon_state.has_std_out = beacon_state.exit_code = 0;
  beacon_state.output_error[0] = 0;
  if (!e) e = beacon_prepare();
  if (e) return e;
  beacon_state.error[0] = 0;
  e = beacon_state.action->run();
  if (e && beacon_state.exited) {
    beacon_set_int("ExitCode", beacon_state.exit_code);
    if (!beacon_state.has_std_out) beacon_set("StdOut", beacon_state.error);
    e = 0;
  }
  if (!e && beacon_state.output_error[0]) e = beacon_fail("%s", beacon_state.output_error);
  return e;
}

#define BEACON_EXPORT(name) __attribute__((export_name(name), used))

BEACON_EXPORT("beacon_describe") int32_t beacon_export_describe(void) {
  int e = beacon_validate();
  if (!e) {
    beacon_buffer b = {NULL, 0, 0};
    beacon_manifest(&b);
    e = beacon_refused(beacon_import_describe(b.data, b.length), "describe", "");
    free(b.data);
  }
  return beacon_answer(e);
}

BEACON_EXPORT("beacon_initialize") int32_t beacon_export_initialize(void) {
  int e = beacon_validate();
  return beacon_answer(e ? e : beacon_hook("initialize", beacon_served->initialize));
}

BEACON_EXPORT("beacon_execute") int32_t beacon_export_execute(void) { return beacon_answer(beacon_run()); }

BEACON_EXPORT("beacon_shutdown") int32_t beacon_export_shutdown(void) { return beacon_answer(beacon_hook("shutdown", beacon_served->shutdown)); }

#ifdef __cplusplus
}
#endif
#endif /* BEACON_IMPLEMENTATION */
