/* checksum computes digests of files, in one pass and in constant memory:
 * CRC-32, Adler-32, FNV-1a and SHA-256. */
#define BEACON_IMPLEMENTATION
#include <strings.h>

#include "beacon.h"

/* ---- CRC-32 (IEEE 802.3, as of zip and PNG) ------------------------------ */

static uint32_t crc_table[256];

/* initialize runs once; every item begins with a copy of the table. */
static int initialize(void) {
  for (uint32_t n = 0; n < 256; n++) {
    uint32_t c = n;
    for (int bit = 0; bit < 8; bit++) c = c & 1 ? 0xedb88320u ^ c >> 1 : c >> 1;
    crc_table[n] = c;
  }
  return 0;
}

static uint32_t crc32(uint32_t crc, const uint8_t *p, size_t n) {
  crc = ~crc;
  while (n--) crc = crc_table[(crc ^ *p++) & 0xff] ^ crc >> 8;
  return ~crc;
}

/* ---- Adler-32 (RFC 1950) ------------------------------------------------- */

static uint32_t adler32(uint32_t adler, const uint8_t *p, size_t n) {
  uint32_t a = adler & 0xffff, b = adler >> 16;
  while (n > 0) {
    size_t part = n < 5552 ? n : 5552; /* the most that cannot overflow b */
    n -= part;
    while (part--) a += *p++, b += a;
    a %= 65521, b %= 65521;
  }
  return b << 16 | a;
}

/* ---- FNV-1a, 64 bits ----------------------------------------------------- */

static uint64_t fnv1a(uint64_t hash, const uint8_t *p, size_t n) {
  while (n--) hash = (hash ^ *p++) * 0x100000001b3u;
  return hash;
}

/* ---- SHA-256 (FIPS 180-4) ------------------------------------------------ */

typedef struct {
  uint32_t state[8];
  uint64_t length;
  uint8_t block[64];
} sha256;

static const uint32_t rounds[64] = {
    0x428a2f98, 0x71374491, 0xb5c0fbcf, 0xe9b5dba5, 0x3956c25b, 0x59f111f1, 0x923f82a4, 0xab1c5ed5, 0xd807aa98, 0x12835b01, 0x243185be,
    0x550c7dc3, 0x72be5d74, 0x80deb1fe, 0x9bdc06a7, 0xc19bf174, 0xe49b69c1, 0xefbe4786, 0x0fc19dc6, 0x240ca1cc, 0x2de92c6f, 0x4a7484aa,
    0x5cb0a9dc, 0x76f988da, 0x983e5152, 0xa831c66d, 0xb00327c8, 0xbf597fc7, 0xc6e00bf3, 0xd5a79147, 0x06ca6351, 0x14292967, 0x27b70a85,
    0x2e1b2138, 0x4d2c6dfc, 0x53380d13, 0x650a7354, 0x766a0abb, 0x81c2c92e, 0x92722c85, 0xa2bfe8a1, 0xa81a664b, 0xc24b8b70, 0xc76c51a3,
    0xd192e819, 0xd6990624, 0xf40e3585, 0x106aa070, 0x19a4c116, 0x1e376c08, 0x2748774c, 0x34b0bcb5, 0x391c0cb3, 0x4ed8aa4a, 0x5b9cca4f,
    0x682e6ff3, 0x748f82ee, 0x78a5636f, 0x84c87814, 0x8cc70208, 0x90befffa, 0xa4506ceb, 0xbef9a3f7, 0xc67178f2,
};

static void sha256_begin(sha256 *s) {
  static const uint32_t first[8] = {0x6a09e667, 0xbb67ae85, 0x3c6ef372, 0xa54ff53a, 0x510e527f, 0x9b05688c, 0x1f83d9ab, 0x5be0cd19};
  memcpy(s->state, first, sizeof first);
  s->length = 0;
}

static uint32_t rotate(uint32_t x, int n) { return x >> n | x << (32 - n); }

static void sha256_block(uint32_t state[8], const uint8_t *p) {
  uint32_t w[64], v[8];
  for (int i = 0; i < 16; i++, p += 4) w[i] = (uint32_t)p[0] << 24 | (uint32_t)p[1] << 16 | (uint32_t)p[2] << 8 | p[3];
  for (int i = 16; i < 64; i++) {
    uint32_t a = w[i - 15], b = w[i - 2];
    w[i] = w[i - 16] + (rotate(a, 7) ^ rotate(a, 18) ^ a >> 3) + w[i - 7] + (rotate(b, 17) ^ rotate(b, 19) ^ b >> 10);
  }
  memcpy(v, state, sizeof v);
  for (int i = 0; i < 64; i++) {
    uint32_t e = v[4], a = v[0];
    uint32_t t1 = v[7] + (rotate(e, 6) ^ rotate(e, 11) ^ rotate(e, 25)) + ((e & v[5]) ^ (~e & v[6])) + rounds[i] + w[i];
    uint32_t t2 = (rotate(a, 2) ^ rotate(a, 13) ^ rotate(a, 22)) + ((a & v[1]) ^ (a & v[2]) ^ (v[1] & v[2]));
    memmove(v + 1, v, 7 * sizeof v[0]);
    v[4] += t1;
    v[0] = t1 + t2;
  }
  for (int i = 0; i < 8; i++) state[i] += v[i];
}

static void sha256_add(sha256 *s, const uint8_t *p, size_t n) {
  size_t have = s->length % 64;
  s->length += n;
  if (have > 0) {
    size_t part = 64 - have < n ? 64 - have : n;
    memcpy(s->block + have, p, part);
    if (have + part < 64) return;
    sha256_block(s->state, s->block);
    p += part, n -= part;
  }
  for (; n >= 64; p += 64, n -= 64) sha256_block(s->state, p);
  memcpy(s->block, p, n);
}

static void sha256_end(sha256 *s, char text[65]) {
  uint64_t bits = s->length * 8;
  static const uint8_t pad[64] = {0x80};
  uint8_t tail[8];
  sha256_add(s, pad, 1 + (119 - s->length % 64) % 64);
  for (int i = 0; i < 8; i++) tail[i] = (uint8_t)(bits >> (56 - 8 * i));
  sha256_add(s, tail, 8);
  for (int i = 0; i < 8; i++) snprintf(text + 8 * i, 9, "%08lx", (unsigned long)s->state[i]);
}

/* ---- The action ---------------------------------------------------------- */

static int checksum(void) {
  static uint8_t buffer[1 << 18];
  const char *algorithm = beacon_text("Algorithm"), *expected = beacon_text("Expected");
  int all = strcmp(algorithm, "all") == 0, e;
  uint32_t crc = 0, adler = 1;
  uint64_t fnv = 0xcbf29ce484222325u;
  sha256 sha;
  beacon_file source;
  char crc_text[9], adler_text[9], fnv_text[17], sha_text[65];
  size_t n;

  if (*expected && all) return beacon_exit(1, "Expected takes one Algorithm, not all");
  if ((e = beacon_open_source(&source))) return e;
  sha256_begin(&sha);
  for (int percent = 0;;) {
    if ((e = beacon_read(&source, buffer, sizeof buffer, &n))) return e;
    if (n == 0) break;
    if (all || !strcmp(algorithm, "crc32")) crc = crc32(crc, buffer, n);
    if (all || !strcmp(algorithm, "adler32")) adler = adler32(adler, buffer, n);
    if (all || !strcmp(algorithm, "fnv1a")) fnv = fnv1a(fnv, buffer, n);
    if (all || !strcmp(algorithm, "sha256")) sha256_add(&sha, buffer, n);
    if (beacon_percent(&source) >= percent + 10) {
      percent = (int)beacon_percent(&source);
      beacon_progress(percent, "reading");
    }
  }
  snprintf(crc_text, sizeof crc_text, "%08lx", (unsigned long)crc);
  snprintf(adler_text, sizeof adler_text, "%08lx", (unsigned long)adler);
  snprintf(fnv_text, sizeof fnv_text, "%016llx", (unsigned long long)fnv);
  sha256_end(&sha, sha_text);

  beacon_set_int("Bytes", source.count);
  struct {
    const char *name, *output, *text;
  } digests[] = {{"sha256", "SHA256", sha_text}, {"crc32", "CRC32", crc_text}, {"adler32", "Adler32", adler_text}, {"fnv1a", "FNV1a", fnv_text}};
  for (size_t i = 0; i < sizeof digests / sizeof digests[0]; i++) {
    if (!all && strcmp(algorithm, digests[i].name)) continue;
    beacon_set(digests[i].output, digests[i].text);
    if (i == 0 || !all) beacon_result(digests[i].text);
    if (*expected && strcasecmp(expected, digests[i].text))
      return beacon_exit(1, "the %s is %s, expected was %.64s", digests[i].name, digests[i].text, expected);
  }
  return 0;
}

static const char *const algorithms[] = {"sha256", "crc32", "adler32", "fnv1a", "all", NULL};

static const beacon_setting settings[] = {
    {.name = "Algorithm", .default_value = "sha256", .options = algorithms, .description = "which digest"},
    {.name = "Expected", .description = "the digest that the file should have; another one ends the item with exit code 1"},
    {0},
};

static const beacon_example example = {.source = "data/notes.txt"};

static const beacon_action actions[] = {
    {.name = "Checksum", .description = "computes digests of the source", .settings = settings, .run = checksum, .example = &example},
    {0},
};

static const beacon_provider provider = {
    .name = "checksum", .version = "1.0.0", .capability = "Checksum", .description = "digests of files",
    .actions = actions, .initialize = initialize,
};

BEACON_SERVE(provider)
