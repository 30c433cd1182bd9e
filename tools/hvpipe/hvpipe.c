// SPDX-License-Identifier: GPL-2.0-or-later
/* hvpipe(1): messages and files between this partition and a source, over libhvpipe. Options; choice of command. */
#include "cli.h"

#include <errno.h>
#include <getopt.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

const char program_name[] = "hvpipe";

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

struct options options = { .timeout_ms = -1 };

void write_stdout(const void *data, size_t len)
{
	if (!write_all(STDOUT_FILENO, data, len))
		die(EXIT_FAILURE, "standard output: %s", strerror(errno));
}

static void set_source(const char *text)
{
	uint64_t number;

	if (!strncmp(text, "hmc", 3) && parse_number(text + 3, 10, 0, 0xffff, &number))
		options.source = HVPIPE_SOURCE_HMC(number);
	else if (parse_number(text, 0, 0, UINT32_MAX, &number))
		options.source = number;
	else
		usage_error("source '%s': hmc1, say, or a number of 32 bits like 0x02000001 is needed", text);
	if (strlen(text) >= sizeof(options.source_name))
		usage_error("source '%s': too many digits", text);
	strcpy(options.source_name, text);
}

/* An option of another command is wrong usage, as is an unknown one. */
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
			usage_error("option -%c does not belong here", opt);
		switch (opt) {
		case 's':
			set_source(optarg);
			break;
		case 'f':
			options.file = true;
			break;
		case 'r':
			options.reply = true;
			break;
		case 'n':
			options.count = parse_count(optarg);
			break;
		case 'd':
			options.dir = optarg;
			break;
		case 't':
			options.timeout_ms = parse_timeout_ms(optarg);
			break;
		case 'x':
			options.exec = optarg;
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

	begin_program();
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
		if (options.timeout_ms >= 0 && !options.reply)
			usage_error("send -t: the time to wait for the reply; needs -r");
		return run_send(argc - optind, argv + optind);
	}

	if (!strcmp(command, "recv"))
		parse_options(argc, argv, "s:n:d:t:hV");
	else if (!strcmp(command, "listen"))
		parse_options(argc, argv, "s:x:hV");
	else if (!strcmp(command, "status"))
		parse_options(argc, argv, "hV");
	else
		usage_error("no command '%s': send, recv, listen or status", command);
	if (optind < argc)
		usage_error("%s: '%s' is one argument too many", command, argv[optind]);

	if (!strcmp(command, "recv"))
		return run_recv();
	if (!strcmp(command, "status"))
		return run_status();
	if (!options.exec)
		usage_error("listen: which COMMAND? Give it with -x");
	return run_listen();
}
