// SPDX-License-Identifier: GPL-2.0-or-later
/* hvpipe(1): messages and files between this partition and a source, over libhvpipe. */
#include <ctype.h>
#include <errno.h>
#include <fcntl.h>
#include <getopt.h>
#include <inttypes.h>
#include <limits.h>
#include <poll.h>
#include <signal.h>
#include <stdarg.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#include "file-message.h"
#include "hvpipe.h"

/*
 * How long who sends bears with a source that was there before, and between its tries. hvpipe-hmc looks for the partition
 * after 250 ms, then less often, down to every 5 s.
 */
#define RETURN_MS 10000
#define RETRY_MS 100

enum {
	EXIT_USAGE = 2,
	EXIT_NO_PIPE = 3,
	EXIT_IN_USE = 4,
	EXIT_CLOSED = 5,
	EXIT_NO_MESSAGE = 6,
};

static const char usage[] =
	"Usage: hvpipe [-s SOURCE] COMMAND\n"
	"Messages and files between this partition and its HMC, through the hypervisor pipe.\n"
	"\n"
	"  send [-f] [-r [-t SECONDS]] [FILE...]\n"
	"                    send each FILE, or standard input; more than 4088 bytes go as\n"
	"                    consecutive messages\n"
	"    -f, --file      as file messages, with name and size, for `recv -d` over there\n"
	"    -r, --reply     wait for one message after each FILE and print `NAME: reply`\n"
	"  recv [-n N] [-d DIR] [-t SECONDS]\n"
	"                    write what comes to standard output\n"
	"    -d, --dir=DIR   take file messages and store the files in DIR\n"
	"    -n, --count=N   end after N messages, with -d after N files\n"
	"  listen -x COMMAND\n"
	"    -x, --exec=COMMAND  run `sh -c COMMAND` for each message, the message on its\n"
	"                    standard input and HVPIPE_SOURCE in its environment; what it\n"
	"                    prints is the reply\n"
	"  status            the state of the pipe, and who holds which source\n"
	"\n"
	"  -s, --source=SOURCE   hmcN, or a source ID like 0x02000001; default hmc1\n"
	"  -t, --timeout=SECONDS end with status 6 when no message comes for so long\n"
	"  -h, --help\n"
	"  -V, --version\n"
	"\n"
	"Exit status: 0 done; 1 failed; 2 wrong usage; 3 no hypervisor pipe here, or it is\n"
	"suspended; 4 the source is held by another process; 5 nobody takes messages at the\n"
	"source; 6 no message within -t SECONDS.\n";

static struct config {
	uint32_t source;
	char source_name[32];
	bool file;
	bool reply;
	const char *dir;
	const char *exec;
	uint64_t count;		/* 0: without end */
	int timeout_ms;		/* -1: without end */
} config = { .timeout_ms = -1 };

static void __attribute__((format(printf, 1, 2))) report(const char *format, ...)
{
	va_list args;

	fputs("hvpipe: ", stderr);
	va_start(args, format);
	vfprintf(stderr, format, args);
	va_end(args);
	fputc('\n', stderr);
}

#define die(status, ...) \
	do { \
		report(__VA_ARGS__); \
		exit(status); \
	} while (0)

/*
 * The first SIGINT or SIGTERM lets the message in hand be finished, so that nothing received is lost; the second kills.
 */
static int stop_pipe[2] = { -1, -1 };

static void on_stop(int signo)
{
	int saved = errno;
	ssize_t n = write(stop_pipe[1], "", 1);

	(void)n;
	(void)signo;
	errno = saved;
}

static void catch_stop(void)
{
	struct sigaction action = { .sa_handler = on_stop, .sa_flags = SA_RESTART | SA_RESETHAND };

	if (pipe2(stop_pipe, O_CLOEXEC | O_NONBLOCK))
		die(EXIT_FAILURE, "pipe: %s", strerror(errno));
	sigaction(SIGINT, &action, NULL);
	sigaction(SIGTERM, &action, NULL);
}

static int64_t now_ms(void)
{
	struct timespec ts;

	clock_gettime(CLOCK_MONOTONIC, &ts);
	return ts.tv_sec * INT64_C(1000) + ts.tv_nsec / 1000000;
}

enum wait_result { WAIT_READY, WAIT_TIMEOUT, WAIT_STOP };

/* Wait for events on the handle until the deadline (negative: for ever), or to be told to stop. */
static enum wait_result wait_for(struct hvpipe *pipe, short events, int64_t deadline)
{
	struct pollfd pfds[] = {
		{ .fd = hvpipe_get_fd(pipe), .events = events },
		{ .fd = stop_pipe[0], .events = POLLIN },
	};

	for (;;) {
		int64_t left = deadline < 0 ? -1 : deadline - now_ms();
		int n;

		if (deadline >= 0 && left < 0)
			left = 0;
		n = poll(pfds, 2, left > INT_MAX ? INT_MAX : (int)left);
		if (n < 0 && errno != EINTR)
			die(EXIT_FAILURE, "poll: %s", strerror(errno));
		if (n > 0 && pfds[1].revents)
			return WAIT_STOP;
		if (n > 0)
			return WAIT_READY;
		if (n == 0 && deadline >= 0 && now_ms() >= deadline)
			return WAIT_TIMEOUT;
	}
}

static int print_holder(const struct hvpipe_holder *holder, void *data)
{
	(void)data;
	if (holder->source == config.source)
		report("process %d (%s) holds it", (int)holder->pid, holder->command);
	return 0;
}

/* Nothing can go through the pipe at all. */
static void __attribute__((noreturn)) die_no_device(int err)
{
	switch (err) {
	case ENOENT:
	case ENODEV:
		die(EXIT_NO_PIPE, "no /dev/papr-hvpipe: the kernel has no papr-hvpipe driver, "
		    "or the hypervisor no pipe for this partition");
	case ENXIO:
		die(EXIT_NO_PIPE, "the pipe is suspended or disabled: try again when the partition's move is over");
	case EOPNOTSUPP:
		die(EXIT_NO_PIPE, "the hypervisor has no pipe for this partition now");
	case EACCES:
	case EPERM:
		die(EXIT_FAILURE, "/dev/papr-hvpipe: %s: only root may use the pipe", strerror(err));
	default:
		die(EXIT_FAILURE, "/dev/papr-hvpipe: %s", strerror(err));
	}
}

static struct hvpipe *open_source(void)
{
	struct hvpipe *pipe = hvpipe_open(config.source);

	if (pipe)
		return pipe;

	switch (errno) {
	case EALREADY:
		report("%s: in use; only one process can hold a source, see `hvpipe status`", config.source_name);
		hvpipe_each_holder(print_holder, NULL);
		exit(EXIT_IN_USE);
	case EINVAL:
		die(EXIT_FAILURE, "%s: no source ID; 0x02000001 is hmc1, and only the last four digits may differ",
		    config.source_name);
	default:
		die_no_device(errno);
	}
}

/* Has anything been heard of the source: a message, that one was taken, or that its connection was lost? */
static bool met;

static int see_loss(const struct hvpipe_holder *holder, void *data)
{
	bool *lost = data;

	if (holder->pid == getpid() && holder->source == config.source)
		*lost = !strcmp(holder->state, "lost");
	return 0;
}

/*
 * Nobody takes messages at the source now. May it come back? That is what a move of the partition looks like until the HMC
 * is there, too; the loss may still be waiting behind other sources' messages.
 */
static bool may_return(void)
{
	bool lost = false;

	if (!met)
		hvpipe_each_holder(see_loss, &lost);
	return met || lost;
}

/*
 * Send one message, however long the partition is suspended, and give a source that was lost time to come back. Returns 0,
 * or -1 with errno after a report.
 */
static int try_send(struct hvpipe *pipe, const void *message, size_t len)
{
	int64_t deadline = -1;

	while (hvpipe_send(pipe, message, len) < 0) {
		switch (errno) {
		case ENXIO:
			report("%s: the pipe is suspended, waiting", config.source_name);
			if (wait_for(pipe, POLLOUT, -1) == WAIT_STOP) {
				errno = EINTR;
				return -1;
			}
			deadline = -1;
			continue;
		case EPIPE:
			if (deadline < 0 && may_return()) {
				report("%s: connection lost, trying for %d seconds", config.source_name,
				       RETURN_MS / 1000);
				deadline = now_ms() + RETURN_MS;
			}
			if (now_ms() < deadline) {
				if (wait_for(pipe, 0, now_ms() + RETRY_MS) == WAIT_STOP) {
					errno = EINTR;
					return -1;
				}
				continue;
			}
			report("%s: nobody takes messages there: %zu bytes not delivered", config.source_name, len);
			errno = EPIPE;
			return -1;
		case EINVAL:
			report("%s: the hypervisor knows no such source", config.source_name);
			errno = EINVAL;
			return -1;
		case EOPNOTSUPP:
			die_no_device(errno);
		default:
			{
				int err = errno;

				report("%s: send of %zu bytes: %s", config.source_name, len, strerror(err));
				errno = err;
			}
			return -1;
		}
	}
	met = true;
	return 0;
}

static void send_message(struct hvpipe *pipe, const void *message, size_t len)
{
	if (try_send(pipe, message, len))
		exit(errno == EPIPE ? EXIT_CLOSED : EXIT_FAILURE);
}

static void send_file(struct hvpipe *pipe, const char *path)
{
	struct file_message_error error;
	char message[FILE_MESSAGE_MAX];
	struct file_sender sender;
	ssize_t len;

	if (file_sender_open(&sender, path, &error))
		die(EXIT_FAILURE, "%s", error.text);
	while ((len = file_sender_next(&sender, message, &error)) > 0)
		send_message(pipe, message, len);
	if (len < 0)
		die(EXIT_FAILURE, "%s", error.text);
	file_sender_close(&sender);
}

/* Read until the buffer is full or the file ends. */
static ssize_t read_full(int fd, char *data, size_t size)
{
	size_t len = 0;

	while (len < size) {
		ssize_t n = read(fd, data + len, size - len);

		if (n < 0 && errno == EINTR)
			continue;
		if (n < 0)
			return -1;
		if (n == 0)
			break;
		len += n;
	}
	return len;
}

static void send_raw(struct hvpipe *pipe, const char *path)
{
	bool stdin_wanted = !strcmp(path, "-");
	const char *name = stdin_wanted ? "standard input" : path;
	char message[HVPIPE_MAX_PAYLOAD];
	uint64_t sent = 0;
	ssize_t len;
	int fd;

	fd = stdin_wanted ? STDIN_FILENO : open(path, O_RDONLY | O_CLOEXEC);
	if (fd < 0)
		die(EXIT_FAILURE, "%s: %s", name, strerror(errno));
	while ((len = read_full(fd, message, sizeof(message))) > 0) {
		send_message(pipe, message, len);
		sent++;
	}
	if (len < 0)
		die(EXIT_FAILURE, "%s: read: %s", name, strerror(errno));
	if (!sent)
		die(EXIT_FAILURE, "%s: empty, and a message has at least 1 byte (-f can send empty files)", name);
	if (!stdin_wanted)
		close(fd);
}

static void write_stdout(const char *data, size_t len)
{
	while (len) {
		ssize_t n = write(STDOUT_FILENO, data, len);

		if (n < 0 && errno == EINTR)
			continue;
		if (n < 0)
			die(EXIT_FAILURE, "standard output: %s", strerror(errno));
		data += n;
		len -= n;
	}
}

/* Receive one message. Ends the program when there will be none. */
static ssize_t receive(struct hvpipe *pipe, void *message)
{
	int64_t deadline = config.timeout_ms < 0 ? -1 : now_ms() + config.timeout_ms;
	short events = POLLIN | POLLRDHUP;

	for (;;) {
		ssize_t len;

		switch (wait_for(pipe, events, deadline)) {
		case WAIT_STOP:
			/* Without a count, being stopped is the way to end. */
			exit(config.count || config.reply ? EXIT_FAILURE : EXIT_SUCCESS);
		case WAIT_TIMEOUT:
			die(EXIT_NO_MESSAGE, "%s: no message for %g seconds", config.source_name,
			    config.timeout_ms / 1000.0);
		case WAIT_READY:
			break;
		}
		events = POLLIN | POLLRDHUP;

		len = hvpipe_recv(pipe, message, HVPIPE_MAX_RECEIVE, 0);
		if (len > 0) {
			met = true;
			return len;
		}
		switch (errno) {
		case ETIMEDOUT:
			break;
		case ECONNRESET:
			report("%s: connection lost, waiting for it to come back", config.source_name);
			met = true;
			break;
		case ENXIO:
			report("%s: the pipe is suspended, waiting", config.source_name);
			events = POLLIN | POLLOUT;
			break;
		case EOPNOTSUPP:
			die_no_device(errno);
		default:
			die(EXIT_FAILURE, "%s: receive: %s", config.source_name, strerror(errno));
		}
	}
}

static int run_send(int argc, char **argv)
{
	static char *standard_input[] = { "-" };
	char reply[HVPIPE_MAX_RECEIVE];
	struct hvpipe *pipe;

	if (!argc) {
		if (config.file)
			die(EXIT_USAGE, "send -f: which FILE? A file message must name it");
		argc = 1;
		argv = standard_input;
	}

	pipe = open_source();
	for (int i = 0; i < argc; i++) {
		ssize_t len;

		if (config.file)
			send_file(pipe, argv[i]);
		else
			send_raw(pipe, argv[i]);
		if (!config.reply)
			continue;
		len = receive(pipe, reply);
		printf("%s: ", argv[i]);
		fflush(stdout);
		write_stdout(reply, len);
		if (reply[len - 1] != '\n')
			write_stdout("\n", 1);
	}
	hvpipe_close(pipe);
	return EXIT_SUCCESS;
}

static int run_recv(void)
{
	struct file_message_error error;
	char message[HVPIPE_MAX_RECEIVE];
	struct file_receiver receiver;
	int status = EXIT_SUCCESS;
	struct hvpipe *pipe;
	uint64_t count = 0;

	if (config.dir && file_receiver_open(&receiver, config.dir, false, &error))
		die(EXIT_FAILURE, "%s", error.text);
	catch_stop();
	pipe = open_source();

	while (!config.count || count < config.count) {
		ssize_t len = receive(pipe, message);

		if (!config.dir) {
			write_stdout(message, len);
			count++;
			continue;
		}
		switch (file_receiver_take(&receiver, message, len, &error)) {
		case FILE_RECEIVER_COMPLETE:
			if (error.text[0])
				report("%s: %s", config.source_name, error.text);
			printf("%s\n", receiver.name);
			if (fflush(stdout))
				die(EXIT_FAILURE, "standard output: %s", strerror(errno));
			count++;
			break;
		case FILE_RECEIVER_MORE:
			if (error.text[0])
				report("%s: %s", config.source_name, error.text);
			break;
		case FILE_RECEIVER_ERROR:
			if (errno != EBADMSG)
				die(EXIT_FAILURE, "%s: %s", config.dir, error.text);
			report("%s: message of %zd bytes dropped: %s", config.source_name, len, error.text);
			status = EXIT_FAILURE;
			break;
		}
	}
	if (config.dir)
		file_receiver_close(&receiver);
	hvpipe_close(pipe);
	return status;
}

/* Run the command over one message. Returns the length of all it printed, of which `reply` has the first bytes. */
static uint64_t run_command(const char *message, size_t len, char *reply, size_t size)
{
	int in[2], out[2], status;
	uint64_t total = 0;
	pid_t pid;

	/* A pipe takes a message whole, as it takes PIPE_BUF bytes: no need to feed the command while it runs. */
	_Static_assert(HVPIPE_MAX_RECEIVE <= PIPE_BUF, "a message fits a pipe");
	if (pipe2(in, O_CLOEXEC) || pipe2(out, O_CLOEXEC))
		die(EXIT_FAILURE, "pipe: %s", strerror(errno));
	if (write(in[1], message, len) != (ssize_t)len)
		die(EXIT_FAILURE, "pipe: %s", strerror(errno));
	close(in[1]);

	pid = fork();
	if (pid < 0)
		die(EXIT_FAILURE, "fork: %s", strerror(errno));
	if (pid == 0) {
		if (dup2(in[0], STDIN_FILENO) < 0 || dup2(out[1], STDOUT_FILENO) < 0)
			_exit(127);
		execl("/bin/sh", "sh", "-c", config.exec, (char *)NULL);
		report("/bin/sh: %s", strerror(errno));
		_exit(127);
	}
	close(in[0]);
	close(out[1]);

	for (;;) {
		char rest[4096];
		char *to = total < size ? reply + total : rest;
		ssize_t n = read(out[0], to, total < size ? size - total : sizeof(rest));

		if (n < 0 && errno == EINTR)
			continue;
		if (n <= 0)
			break;
		total += n;
	}
	close(out[0]);
	while (waitpid(pid, &status, 0) < 0 && errno == EINTR)
		;
	if (WIFSIGNALED(status))
		report("%s: killed by signal %d (%s)", config.exec, WTERMSIG(status), strsignal(WTERMSIG(status)));
	else if (WEXITSTATUS(status))
		report("%s: exit status %d", config.exec, WEXITSTATUS(status));
	return total;
}

static int run_listen(void)
{
	char message[HVPIPE_MAX_RECEIVE], reply[HVPIPE_MAX_PAYLOAD];
	char source[16];
	struct hvpipe *pipe;

	snprintf(source, sizeof(source), "0x%08" PRIx32, config.source);
	if (setenv("HVPIPE_SOURCE", source, 1))
		die(EXIT_FAILURE, "environment: %s", strerror(errno));
	catch_stop();
	pipe = open_source();

	for (;;) {
		ssize_t len = receive(pipe, message);
		uint64_t reply_len = run_command(message, len, reply, sizeof(reply));

		if (reply_len > sizeof(reply))
			report("%s: reply of %" PRIu64 " bytes not sent: a message has at most %d",
			       config.exec, reply_len, HVPIPE_MAX_PAYLOAD);
		else if (reply_len && try_send(pipe, reply, reply_len) && errno == EINTR)
			break;
	}
	hvpipe_close(pipe);
	return EXIT_SUCCESS;
}

/* A number of the driver's, or "-" if it tells none. */
static const char *number_text(uint64_t number, char text[static 24])
{
	if (number == HVPIPE_UNKNOWN)
		return "-";
	snprintf(text, 24, "%" PRIu64, number);
	return text;
}

static int print_row(const struct hvpipe_holder *holder, void *data)
{
	bool *header_wanted = data;
	char source[16] = "-", texts[5][24];

	if (*header_wanted)
		printf("%-10s  %-9s  %10s  %12s  %10s  %12s  %6s  %7s  %s\n", "SOURCE", "STATE", "SENT", "BYTES",
		       "RECEIVED", "BYTES", "HELD", "PID", "COMMAND");
	*header_wanted = false;
	if (holder->source)
		snprintf(source, sizeof(source), "0x%08" PRIx32, holder->source);
	printf("%-10s  %-9s  %10s  %12s  %10s  %12s  %6s  %7d  %s\n", source, holder->state,
	       number_text(holder->sent, texts[0]), number_text(holder->sent_bytes, texts[1]),
	       number_text(holder->received, texts[2]), number_text(holder->received_bytes, texts[3]),
	       number_text(holder->held, texts[4]), (int)holder->pid, holder->command);
	return 0;
}

static int run_status(void)
{
	struct hvpipe_status status;
	bool header_wanted = true;
	char texts[2][24];

	if (hvpipe_get_status(&status))
		die_no_device(errno);
	printf("pipe %s, %s %s open, %s messages dropped that came for sources not open\n", status.state,
	       number_text(status.handles, texts[0]), status.handles == 1 ? "source" : "sources",
	       number_text(status.dropped, texts[1]));
	if (hvpipe_each_holder(print_row, &header_wanted) < 0)
		die(EXIT_FAILURE, "/proc: %s", strerror(errno));
	return EXIT_SUCCESS;
}

static bool parse_unsigned(const char *text, int base, uint64_t max, uint64_t *number)
{
	char *end;

	errno = 0;
	*number = strtoull(text, &end, base);
	return isdigit((unsigned char)text[0]) && !*end && !errno && *number <= max;
}

static void set_source(const char *text)
{
	uint64_t number;

	if (!strncmp(text, "hmc", 3) && parse_unsigned(text + 3, 10, 0xffff, &number))
		config.source = HVPIPE_SOURCE_HMC(number);
	else if (parse_unsigned(text, 0, UINT32_MAX, &number))
		config.source = number;
	else
		die(EXIT_USAGE, "source '%s': hmc1, say, or a number of 32 bits like 0x02000001", text);
	if (strlen(text) >= sizeof(config.source_name))
		die(EXIT_USAGE, "source '%s': too many digits", text);
	strcpy(config.source_name, text);
}

static void set_timeout(const char *text)
{
	char *end;
	double seconds = strtod(text, &end);

	/* Written so that NaN fails. */
	if (end == text || *end || !(seconds >= 0 && seconds <= INT_MAX / 1000))
		die(EXIT_USAGE, "timeout '%s': seconds, from 0 to %d", text, INT_MAX / 1000);
	config.timeout_ms = (int)(seconds * 1000);
	if (config.timeout_ms < seconds * 1000)
		config.timeout_ms++;
}

/* An option that the command does not know is wrong usage, as is one it does not use. */
static void parse_options(int argc, char **argv, const char *short_options)
{
	static const struct option long_options[] = {
		{ "source", required_argument, NULL, 's' },
		{ "file", no_argument, NULL, 'f' },
		{ "reply", no_argument, NULL, 'r' },
		{ "count", required_argument, NULL, 'n' },
		{ "dir", required_argument, NULL, 'd' },
		{ "timeout", required_argument, NULL, 't' },
		{ "exec", required_argument, NULL, 'x' },
		{ "help", no_argument, NULL, 'h' },
		{ "version", no_argument, NULL, 'V' },
		{ 0 }
	};
	int opt;

	while ((opt = getopt_long(argc, argv, short_options, long_options, NULL)) != -1) {
		if (opt != '?' && !strchr(short_options, opt))
			die(EXIT_USAGE, "option -%c does not belong here; see `hvpipe --help`", opt);
		switch (opt) {
		case 's':
			set_source(optarg);
			break;
		case 'f':
			config.file = true;
			break;
		case 'r':
			config.reply = true;
			break;
		case 'n':
			if (!parse_unsigned(optarg, 10, UINT64_MAX, &config.count) || !config.count)
				die(EXIT_USAGE, "count '%s': a number from 1 on", optarg);
			break;
		case 'd':
			config.dir = optarg;
			break;
		case 't':
			set_timeout(optarg);
			break;
		case 'x':
			config.exec = optarg;
			break;
		case 'h':
			fputs(usage, stdout);
			exit(EXIT_SUCCESS);
		case 'V':
			puts("hvpipe " HVPIPE_VERSION);
			exit(EXIT_SUCCESS);
		default:
			fputs("See `hvpipe --help`.\n", stderr);
			exit(EXIT_USAGE);
		}
	}
}

int main(int argc, char **argv)
{
	const char *command;
	int fd;

	/* A descriptor below 3 would be taken for a standard one, by us and by the command that listen runs. */
	do
		fd = open("/dev/null", O_RDWR);
	while (fd >= 0 && fd <= STDERR_FILENO);
	close(fd);

	set_source("hmc1");
	parse_options(argc, argv, "+s:hV");
	if (optind == argc) {
		fputs(usage, stderr);
		return EXIT_USAGE;
	}
	command = argv[optind];
	argc -= optind;
	argv += optind;
	optind = 0; /* glibc: begin afresh */

	if (!strcmp(command, "send")) {
		parse_options(argc, argv, "s:frt:hV");
		if (config.timeout_ms >= 0 && !config.reply)
			die(EXIT_USAGE, "send -t: how long to wait for the reply; needs -r");
		return run_send(argc - optind, argv + optind);
	}

	if (!strcmp(command, "recv"))
		parse_options(argc, argv, "s:n:d:t:hV");
	else if (!strcmp(command, "listen"))
		parse_options(argc, argv, "s:x:hV");
	else if (!strcmp(command, "status"))
		parse_options(argc, argv, "hV");
	else
		die(EXIT_USAGE, "no command '%s': send, recv, listen or status", command);
	if (optind < argc)
		die(EXIT_USAGE, "%s: '%s' is one argument too many", command, argv[optind]);

	if (!strcmp(command, "recv"))
		return run_recv();
	if (!strcmp(command, "status"))
		return run_status();
	if (!config.exec)
		die(EXIT_USAGE, "listen: which COMMAND? Give it with -x");
	return run_listen();
}
