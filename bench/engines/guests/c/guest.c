// Finds "text":"..." in its input and upper-cases it into memory of its own.
// Reactors on wasi-libc with three interfaces: plain (alloc, run), of Beacon,
// and of Extism.
#include <ctype.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#define EXPORT(name) __attribute__((export_name(name)))
#define IMPORT(module, name) __attribute__((import_module(module), import_name(name)))

static char *in, *out;
static size_t in_cap, out_cap;
static unsigned char up[256];
static time_t started;

__attribute__((constructor)) static void begin(void) {
  for (int i = 0; i < 256; i++) up[i] = (unsigned char)toupper(i);
  started = time(NULL);
}

static char *room(size_t n) {
  if (n > in_cap) { free(in); in_cap = n; in = malloc(n); }
  return in;
}

// work leaves a byte free before and after the text.
static char *work(const char *p, size_t n, size_t *size) {
  static const char key[] = "\"text\":\"";
  const char *s = NULL;
  for (size_t i = 0; i + sizeof key - 1 < n; i++)
    if (!memcmp(p + i, key, sizeof key - 1)) { s = p + i + sizeof key - 1; break; }
  if (!s) return NULL;
  const char *e = memchr(s, '"', n - (size_t)(s - p));
  if (!e) return NULL;
  size_t m = (size_t)(e - s);
  if (m + 2 > out_cap) { free(out); out_cap = m + 2; out = malloc(out_cap); }
  for (size_t i = 0; i < m; i++) out[i + 1] = (char)up[(unsigned char)s[i]];
  *size = m;
  return out + 1;
}

#if defined(PLAIN)

EXPORT("alloc") void *guest_alloc(size_t n) { return room(n); }
EXPORT("run") uint64_t guest_run(const char *p, size_t n) {
  size_t m = 0;
  char *text = work(p, n, &m);
  return (uint64_t)(uintptr_t)text << 32 | m;
}

// For what is initialised in advance: one item has been done.
EXPORT("warm") void warm(void) {
  static const char item[] = "{\"id\":\"a\",\"tags\":[\"b\"],\"n\":1,\"text\":\"the quick brown fox jumps over the lazy dog and then does it again because two hundred bytes is a lot\"}";
  size_t m;
  char *p = room(256);
  memcpy(p, item, sizeof item);
  work(p, sizeof item - 1, &m);
}

#elif defined(BEACON)

IMPORT("beacon_v1", "setting") int setting(const char *, size_t, char *, size_t, uint32_t *);
IMPORT("beacon_v1", "output") int output(const char *, size_t, const char *, size_t);

EXPORT("beacon_execute") int execute(void) {
  uint32_t n;
  char *p = room(4096);
  if (setting("Input", 5, p, in_cap, &n)) return 1;
  size_t m = 0;
  char *text = work(p, n, &m);
  if (!text) return 1;
  text[-1] = text[m] = '"';
  return output("Result", 6, text - 1, m + 2);
}

#elif defined(EXTISM)

#define KERNEL(name) IMPORT("extism:host/env", #name)
KERNEL(input_length) uint64_t input_length(void);
KERNEL(input_load_u64) uint64_t input_load_u64(uint64_t);
KERNEL(input_load_u8) uint8_t input_load_u8(uint64_t);
KERNEL(alloc) uint64_t kernel_alloc(uint64_t);
KERNEL(store_u64) void store_u64(uint64_t, uint64_t);
KERNEL(store_u8) void store_u8(uint64_t, uint8_t);
KERNEL(output_set) void output_set(uint64_t, uint64_t);

EXPORT("run") int run(void) {
  uint64_t n = input_length(), i = 0;
  char *p = room(n);
  for (; i + 8 <= n; i += 8) { uint64_t v = input_load_u64(i); memcpy(p + i, &v, 8); }
  for (; i < n; i++) p[i] = (char)input_load_u8(i);
  size_t m = 0;
  char *text = work(p, n, &m);
  if (!text) return 1;
  uint64_t to = kernel_alloc(m);
  for (i = 0; i + 8 <= m; i += 8) { uint64_t v; memcpy(&v, text + i, 8); store_u64(to + i, v); }
  for (; i < m; i++) store_u8(to + i, (uint8_t)text[i]);
  output_set(to, m);
  return 0;
}

#endif
