// What the tests find the lines of.
int divide(int a, int b) {
	return a /
		b;
}

static inline int twice(int a) { return a + a; }

int compute(int n) {
	int sum = 0;
	for (int i = 0; i < n; i++) {
		sum += twice(i);
		sum += divide(sum, n - i);
	}
	return sum;
}

int main(void) { return compute(7) + divide(1, 0); }
