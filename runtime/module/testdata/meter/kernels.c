/* Loops as tight as compilers make them. */
typedef unsigned int u32;
static u32 table[256];
static unsigned char bytes[1 << 16];
static double a[96][96], b[96][96], c[96][96];

__attribute__((export_name("crc32"))) u32 crc32(void) {
  for (u32 i = 0; i < 256; i++) {
    u32 v = i;
    for (int k = 0; k < 8; k++) v = v & 1 ? 0xedb88320u ^ (v >> 1) : v >> 1;
    table[i] = v;
  }
  u32 sum = ~0u;
  for (int n = 0; n < 200; n++)
    for (u32 i = 0; i < sizeof bytes; i++) sum = table[(sum ^ bytes[i]) & 255] ^ (sum >> 8);
  return sum;
}

__attribute__((export_name("matrix"))) u32 matrix(void) {
  for (int n = 0; n < 20; n++)
    for (int i = 0; i < 96; i++)
      for (int j = 0; j < 96; j++) {
        double sum = i + j;
        for (int k = 0; k < 96; k++) sum += a[i][k] * b[k][j];
        c[i][j] = sum;
        a[j][i] = sum / 1e9;
        b[i][j] = 1;
      }
  return (u32)c[5][6];
}

static u32 fib(u32 n) { return n < 2 ? n : fib(n - 1) + fib(n - 2); }
__attribute__((export_name("fib"))) u32 run_fib(void) { return fib(27); }
