// SPDX-License-Identifier: GPL-2.0
/*
 * "guest exec": one shell command in a nested guest, by its agent (tests/guest/agent).
 *
 *	exec NAME [--timeout SECONDS] COMMAND
 *
 * In C, because starting Python takes an emulated machine longer than most of
 * these commands, and the tests run hundreds.
 */

#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <stdarg.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/file.h>
#include <sys/random.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <time.h>
#include <unistd.h>

#define STATE		"/run/guest"
#define LOGS		"/out"
/* The guest ends the command itself when its time is over: it has this long to say so. */
#define GRACE_S		5
#define NO_ANSWER	125
#define LOG_TAIL_BYTES	2000

static const char *name;

static long long now_ms(void)
{
	struct timespec t;

	clock_gettime(CLOCK_MONOTONIC, &t);
	return t.tv_sec * 1000ll + t.tv_nsec / 1000000;
}

static bool is_alive(void)
{
	char path[512], text[512], *end;
	FILE *file;
	int pid = 0;
	size_t got;

	snprintf(path, sizeof(path), STATE "/%s/pid", name);
	file = fopen(path, "r");
	if (!file)
		return false;
	if (fscanf(file, "%d", &pid) != 1)
		pid = 0;
	fclose(file);
	snprintf(path, sizeof(path), "/proc/%d/stat", pid);
	file = fopen(path, "r");
	if (!file)
		return false;
	got = fread(text, 1, sizeof(text) - 1, file);
	fclose(file);
	text[got] = 0;
	end = strrchr(text, ')');
	return end && end[1] && end[2] != 'Z';
}

static void show_console(void)
{
	char path[512], text[LOG_TAIL_BYTES];
	FILE *file;

	snprintf(path, sizeof(path), LOGS "/guest-%s.log", name);
	file = fopen(path, "r");
	if (!file)
		return;
	if (fseek(file, -LOG_TAIL_BYTES, SEEK_END))
		rewind(file);
	fprintf(stderr, "its QEMU has ended; last on its console:\n");
	fwrite(text, 1, fread(text, 1, sizeof(text), file), stderr);
	fputc('\n', stderr);
	fclose(file);
}

__attribute__((format(printf, 1, 2), noreturn)) static void give_up(const char *format, ...)
{
	va_list list;

	fflush(stdout);
	fprintf(stderr, "guest %s: ", name);
	va_start(list, format);
	vfprintf(stderr, format, list);
	va_end(list);
	fputc('\n', stderr);
	if (!is_alive())
		show_console();
	exit(NO_ANSWER);
}

static char *base64(const char *text)
{
	static const char digits[] = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
	size_t len = strlen(text), at = 0;
	char *out = malloc(len / 3 * 4 + 5);

	if (!out)
		give_up("no memory");
	for (size_t i = 0; i < len; i += 3) {
		size_t left = len - i;
		uint32_t bits = (uint8_t)text[i] << 16;

		if (left > 1)
			bits |= (uint8_t)text[i + 1] << 8;
		if (left > 2)
			bits |= (uint8_t)text[i + 2];
		out[at++] = digits[bits >> 18];
		out[at++] = digits[bits >> 12 & 63];
		out[at++] = left > 1 ? digits[bits >> 6 & 63] : '=';
		out[at++] = left > 2 ? digits[bits & 63] : '=';
	}
	out[at] = 0;
	return out;
}

static int digit(char c)
{
	if (c >= 'A' && c <= 'Z')
		return c - 'A';
	if (c >= 'a' && c <= 'z')
		return c - 'a' + 26;
	if (c >= '0' && c <= '9')
		return c - '0' + 52;
	return c == '+' ? 62 : c == '/' ? 63 : -1;
}

static void print_decoded(const char *text)
{
	uint32_t bits = 0;
	int count = 0;

	for (; *text; text++) {
		if (digit(*text) < 0)
			continue;
		bits = bits << 6 | digit(*text);
		count += 6;
		if (count >= 8) {
			count -= 8;
			putchar(bits >> count & 0xff);
		}
	}
}

static int connect_to_agent(void)
{
	struct sockaddr_un address = { .sun_family = AF_UNIX };
	int fd = socket(AF_UNIX, SOCK_STREAM, 0);

	snprintf(address.sun_path, sizeof(address.sun_path), STATE "/%s/agent", name);
	if (fd < 0 || connect(fd, (struct sockaddr *)&address, sizeof(address)))
		give_up("there is none: %s", strerror(errno));
	return fd;
}

/* The agent does one thing at a time. */
static void take_turn(void)
{
	char path[512];
	int fd;

	snprintf(path, sizeof(path), STATE "/%s/lock", name);
	fd = open(path, O_WRONLY | O_CREAT | O_CLOEXEC, 0644);
	if (fd < 0 || flock(fd, LOCK_EX))
		give_up("there is none: %s", strerror(errno));
}

static void send_all(int fd, const char *text)
{
	size_t left = strlen(text);

	while (left) {
		ssize_t sent = send(fd, text, left, MSG_NOSIGNAL);

		if (sent < 0 && errno != EINTR)
			give_up("QEMU closed the channel: %s", strerror(errno));
		if (sent > 0) {
			text += sent;
			left -= sent;
		}
	}
}

/* What came since the last line, and the next line of it. */
static struct {
	char *text;
	size_t len, size, taken;
} input;

static char *receive_line(int fd, long long deadline)
{
	memmove(input.text, input.text + input.taken, input.len - input.taken);
	input.len -= input.taken;
	input.taken = 0;
	for (size_t looked = 0;;) {
		char *end = input.len > looked ? memchr(input.text + looked, '\n', input.len - looked) : NULL;
		struct pollfd wait = { .fd = fd, .events = POLLIN };
		long long left = deadline - now_ms();
		ssize_t got;

		if (end) {
			*end = 0;
			input.taken = end + 1 - input.text;
			return input.text;
		}
		looked = input.len;
		if (input.size - input.len < 65536) {
			input.size = input.size * 2 + 65536;
			input.text = realloc(input.text, input.size);
			if (!input.text)
				give_up("no memory");
		}
		if (left <= 0)
			give_up("no answer in time");
		if (poll(&wait, 1, left) <= 0)
			continue;
		got = recv(fd, input.text + input.len, input.size - input.len, 0);
		if (got == 0 || (got < 0 && errno != EINTR))
			give_up("QEMU closed the channel");
		input.len += got > 0 ? got : 0;
	}
}

/* How much slower than usual the machine is: for all times that are given or built in. */
static long time_scale(void)
{
	const char *text = getenv("SLUICE_TIME_SCALE");
	long scale = text ? atol(text) : 1;

	return scale > 0 ? scale : 1;
}

static long seconds_of(const char *text)
{
	char *end;
	long seconds = strtol(text, &end, 10);

	if (*end || end == text || seconds <= 0)
		give_up("--timeout wants seconds, not \"%s\"", text);
	return seconds;
}

int main(int argc, char **argv)
{
	const char *command = NULL;
	char tag[9], head[64];
	long long deadline;
	long seconds = 60;
	uint32_t random;
	int fd;

	name = argc > 1 ? argv[1] : "?";
	for (int i = 2; i < argc; i++) {
		if (!strcmp(argv[i], "--timeout") && i + 1 < argc)
			seconds = seconds_of(argv[++i]);
		else if (!command)
			command = argv[i];
		else
			give_up("one command, please, not also \"%s\"", argv[i]);
	}
	if (!command)
		give_up("usage: guest exec NAME [--timeout SECONDS] COMMAND");

	seconds *= time_scale();
	if (getrandom(&random, sizeof(random), 0) != sizeof(random))
		give_up("no random numbers");
	snprintf(tag, sizeof(tag), "%08x", random);
	take_turn();
	fd = connect_to_agent();
	snprintf(head, sizeof(head), "%s %ld ", tag, seconds);
	send_all(fd, head);
	send_all(fd, base64(command));
	send_all(fd, "\n");
	deadline = now_ms() + (seconds + GRACE_S * time_scale()) * 1000;

	for (;;) {
		char *id = receive_line(fd, deadline);
		char *status = strchr(id, ' ');
		char *output = status ? strchr(status + 1, ' ') : NULL;
		size_t len = status ? status - id : 0;

		/* An answer to someone who no longer waits has another tag. */
		if (!output || len < strlen(tag) || strncmp(status - strlen(tag), tag, strlen(tag)))
			continue;
		print_decoded(output);
		fflush(stdout);
		return atoi(status + 1);
	}
}
