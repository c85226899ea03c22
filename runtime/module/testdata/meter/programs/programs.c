// What C compilers make of ordinary programs: the same output is expected of the
// module as it is and of the rewritten one. Built with several sets of flags.
#include <math.h>
#include <stdarg.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static uint32_t seed = 1;
static uint32_t next(void) { return seed = seed * 1664525u + 1013904223u; }

static int compare(const void *a, const void *b) {
	double x = *(const double *)a, y = *(const double *)b;
	return (x > y) - (x < y);
}

static void sorting(void) {
	static double list[5000];
	for (int i = 0; i < 5000; i++)
		list[i] = sin(next()) * 1000;
	qsort(list, 5000, sizeof *list, compare);
	printf("sort %.6f %.6f %.6f\n", list[0], list[2500], list[4999]);
}

struct node {
	struct node *left, *right;
	uint32_t key;
};

static struct node *insert(struct node *n, uint32_t key) {
	if (!n) {
		n = calloc(1, sizeof *n);
		n->key = key;
	} else if (key < n->key)
		n->left = insert(n->left, key);
	else
		n->right = insert(n->right, key);
	return n;
}

static int depth(struct node *n) {
	if (!n)
		return 0;
	int l = depth(n->left), r = depth(n->right);
	return 1 + (l > r ? l : r);
}

static void release(struct node *n) {
	if (!n)
		return;
	release(n->left);
	release(n->right);
	free(n);
}

static void trees(void) {
	struct node *root = NULL;
	for (int i = 0; i < 20000; i++)
		root = insert(root, next());
	printf("tree %d\n", depth(root));
	release(root);
}

static void text(void) {
	char *big = malloc(200000);
	big[0] = 0;
	size_t at = 0;
	for (int i = 0; i < 5000; i++)
		at += (size_t)sprintf(big + at, "%d:%x;", i, next() & 0xffff);
	int words = 0;
	for (char *w = strtok(big, ";"); w; w = strtok(NULL, ";"))
		words += strchr(w, ':') != NULL && strstr(w, "7:") != NULL;
	printf("text %d %zu\n", words, at);
	free(big);
}

static int ackermann(int m, int n) {
	return m == 0 ? n + 1 : n == 0 ? ackermann(m - 1, 1) : ackermann(m - 1, ackermann(m, n - 1));
}

static uint64_t sum(int n, ...) {
	va_list list;
	va_start(list, n);
	uint64_t total = 0;
	for (int i = 0; i < n; i++)
		total += va_arg(list, uint64_t);
	va_end(list);
	return total;
}

typedef int (*operation)(int, int);
static int add(int a, int b) { return a + b; }
static int sub(int a, int b) { return a - b; }
static int mul(int a, int b) { return a * b; }
static int rem_(int a, int b) { return b ? a % b : 0; }

static void pointers(void) {
	operation table[] = {add, sub, mul, rem_};
	int v = 1;
	for (int i = 0; i < 100000; i++)
		v = table[next() >> 30](v, (int)(next() >> 8));
	printf("pointers %d %llu\n", v, (unsigned long long)sum(4, 1ull << 40, 2ull, 3ull, 4ull));
}

static const char *state(int s) {
	switch (s) {
	case 0: return "zero";
	case 1: return "one";
	case 2: return "two";
	case 5: return "five";
	case 9: return "nine";
	default: return s & 1 ? "odd" : "even";
	}
}

static void switches(void) {
	unsigned h = 0;
	for (int i = 0; i < 50000; i++)
		for (const char *c = state((int)(next() % 12)); *c; c++)
			h = h * 31 + (unsigned char)*c;
	printf("switch %u\n", h);
}

static void vectors(void) {
	static float a[4096], b[4096];
	static int16_t c[4096];
	for (int i = 0; i < 4096; i++) {
		a[i] = (float)(next() >> 20);
		b[i] = (float)(next() >> 21);
		c[i] = (int16_t)next();
	}
	float dot = 0;
	int peak = 0;
	for (int round = 0; round < 20; round++)
		for (int i = 0; i < 4096; i++) {
			a[i] = a[i] * 0.5f + b[i];
			c[i] = (int16_t)(c[i] * 3 + 1);
			peak = c[i] > peak ? c[i] : peak;
		}
	for (int i = 0; i < 4096; i++)
		dot += a[i];
	printf("vectors %.3f %d\n", dot, peak);
}

static void memory(void) {
	size_t size = 3 << 20;
	unsigned char *m = malloc(size);
	memset(m, 7, size);
	for (int i = 0; i < 1000; i++)
		m[next() % size] = (unsigned char)i;
	memmove(m + 1, m, size - 1);
	memmove(m, m + 100000, size - 100000);
	uint32_t h = 0;
	for (size_t i = 0; i < size; i++)
		h = h * 16777619u ^ m[i];
	printf("memory %u\n", h);
	free(m);
}

int main(int argc, char **argv) {
	printf("%d %s\n", argc, argv[0]);
	sorting();
	trees();
	text();
	printf("ackermann %d\n", ackermann(2, 300));
	pointers();
	switches();
	vectors();
	memory();
	return 3;
}
