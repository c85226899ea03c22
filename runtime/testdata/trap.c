// A guest that divides by zero, in a loop, after some that went well.
volatile int memory[4096];

__attribute__((noinline)) int divide(int a, int b) {
	return a / b;
}

// compute has a loop around the call, which metering changes much of.
__attribute__((noinline)) int compute(int n) {
	int sum = 0;
	for (int i = 0; i <= n; i++) {
		__builtin_memset((void *)memory, i, sizeof memory);
		sum += memory[i & 15];
		sum += divide(sum, n - i);
	}
	return sum;
}

void _start(void) {
	int sum = 0;
	for (int i = 0; i < 3; i++)
		sum += compute(7 + i);
	memory[0] = sum;
}
