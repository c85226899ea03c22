// Does with files, time and its environment what C programs do.
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>

static int failures;

#define CHECK(ok)                                                        \
	do {                                                                 \
		if (!(ok)) {                                                     \
			fprintf(stderr, "line %d: %s: %s\n", __LINE__, #ok, strerror(errno)); \
			failures++;                                                  \
		}                                                                \
	} while (0)

static void files(void) {
	char buf[64] = {0};
	struct stat st;
	FILE *f = fopen("/work/c.txt", "w+");
	CHECK(f != NULL);
	CHECK(fprintf(f, "hello %d\n", 42) == 9);
	CHECK(fseek(f, 6, SEEK_SET) == 0 && fgets(buf, sizeof buf, f) && strcmp(buf, "42\n") == 0);
	CHECK(fclose(f) == 0);
	f = fopen("c.txt", "a");
	CHECK(f != NULL && fputs("more\n", f) >= 0 && fclose(f) == 0);
	CHECK(stat("c.txt", &st) == 0 && st.st_size == 14 && S_ISREG(st.st_mode) && st.st_nlink == 1 && st.st_dev == 1);
	CHECK(fopen("missing", "r") == NULL && errno == ENOENT);
	CHECK(open("c.txt", O_RDWR | O_CREAT | O_EXCL, 0600) < 0 && errno == EEXIST);
	CHECK(open("c.txt", O_RDONLY | O_DIRECTORY) < 0 && errno == ENOTDIR);
	CHECK(open("../escape", O_RDWR | O_CREAT, 0600) < 0);
	int fd = open("c.txt", O_RDWR);
	CHECK(fd >= 0 && ftruncate(fd, 5) == 0 && lseek(fd, 0, SEEK_END) == 5);
	CHECK(pwrite(fd, "J", 1, 0) == 1 && pread(fd, buf, 5, 0) == 5 && memcmp(buf, "Jello", 5) == 0);
	CHECK(fsync(fd) == 0 && posix_fallocate(fd, 0, 100) == 0 && fstat(fd, &st) == 0 && st.st_size == 100);
	struct pollfd p = {.fd = fd, .events = POLLIN | POLLOUT};
	CHECK(poll(&p, 1, 1000) == 1 && (p.revents & POLLIN));
	CHECK(close(fd) == 0 && close(fd) < 0 && errno == EBADF);
}

static void directories(void) {
	char name[64];
	int seen = 0;
	CHECK(mkdir("many", 0700) == 0 && mkdir("many", 0700) < 0 && errno == EEXIST);
	for (int i = 0; i < 500; i++) {
		snprintf(name, sizeof name, "many/file-with-a-long-name-%04d", i);
		FILE *f = fopen(name, "w");
		CHECK(f != NULL && fclose(f) == 0);
	}
	CHECK(rmdir("many") < 0 && errno == ENOTEMPTY);
	CHECK(unlink("many") < 0 && errno == EISDIR);
	// Removing while listing must neither skip nor repeat.
	DIR *d = opendir("many");
	CHECK(d != NULL);
	for (struct dirent *e; d && (e = readdir(d));) {
		if (e->d_name[0] == '.')
			continue;
		CHECK(e->d_type == DT_REG);
		snprintf(name, sizeof name, "many/%s", e->d_name);
		CHECK(unlink(name) == 0);
		seen++;
	}
	CHECK(seen == 500);
	CHECK(d && closedir(d) == 0);
	CHECK(rename("many", "renamed") == 0 && rmdir("renamed") == 0);
}

static void links(void) {
	char buf[16];
	CHECK(symlink("c.txt", "link") < 0 && errno == EPERM);
	CHECK(link("c.txt", "link") < 0 && errno == EPERM);
	CHECK(readlink("c.txt", buf, sizeof buf) < 0 && errno == EINVAL);
}

int main(int argc, char **argv) {
	char line[32] = {0};
	CHECK(argc == 2 && strcmp(argv[1], "argument") == 0);
	CHECK(getenv("GREETING") && strcmp(getenv("GREETING"), "hello") == 0);
	CHECK(getenv("HOME") == NULL && getenv("PATH") == NULL);
	CHECK(fgets(line, sizeof line, stdin) && strcmp(line, "from stdin\n") == 0);
	CHECK(fgets(line, sizeof line, stdin) == NULL && feof(stdin));
	CHECK(!isatty(0) && !isatty(1));
	files();
	directories();
	links();
	struct timespec a, b, pause = {.tv_nsec = 3000000};
	CHECK(clock_gettime(CLOCK_MONOTONIC, &a) == 0 && nanosleep(&pause, NULL) == 0 && clock_gettime(CLOCK_MONOTONIC, &b) == 0);
	CHECK((b.tv_sec - a.tv_sec) * 1000000000LL + b.tv_nsec - a.tv_nsec >= 2000000);
	CHECK(time(NULL) > 1700000000);
	unsigned char random[32];
	CHECK(getentropy(random, sizeof random) == 0);
	if (failures == 0)
		puts("all well");
	return failures ? 3 : 7;
}
