// fold breaks lines that are longer than a width: an ordinary program with
// options, a file or standard input to read, and a file or standard output to
// write.
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

static FILE *open_or_fail(const char *name, const char *mode) {
	FILE *f = fopen(name, mode);
	if (f == NULL) {
		fprintf(stderr, "fold: %s: %s\n", name, strerror(errno));
		exit(3);
	}
	return f;
}

int main(int argc, char **argv) {
	int width = 80, option;
	FILE *in = stdin, *out = stdout;
	while ((option = getopt(argc, argv, "w:o:")) != -1) {
		switch (option) {
		case 'w':
			width = atoi(optarg);
			break;
		case 'o':
			out = open_or_fail(optarg, "w");
			break;
		default:
			fputs("usage: fold [-w width] [-o output] [file]\n", stderr);
			return 2;
		}
	}
	if (optind < argc) {
		in = open_or_fail(argv[optind], "r");
	}
	for (int c, column = 0; (c = getc(in)) != EOF; column++) {
		if (c == '\n') {
			column = -1;
		} else if (column == width) {
			putc('\n', out);
			column = 0;
		}
		putc(c, out);
	}
	return fclose(out) == 0 ? 0 : 1;
}
