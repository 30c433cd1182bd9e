// SPDX-License-Identifier: GPL-2.0-or-later
/* hvpipe(1): messages and files between this partition and a source, over libhvpipe. Options; choice of command. */
#include "cli.h"

#include <getopt.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

const char program_name[] = "hvpipe";

struct options options = {
	.jobs = 1,
	.timeout_ms = -1,
	.command_timeout_ms = 60000,
	.retry_ms = 10000,
	.message_size = HVPIPE_PORTABLE_PAYLOAD,
};

static const char usage[] = "Usage: hvpipe [-s SOURCE] COMMAND\n"
			    "Messages and files between this partition and its HMC, through the hypervisor pipe.\n"
			    "\n"
			    "  send [-f] [-r] [-t SECONDS] [-m BYTES] [-R SECONDS] [FILE...]\n"
			    "                    send each FILE, or standard input, as consecutive messages\n"
			    "    -f, --file      as file messages, for `recv -d` over there; wait until it says\n"
			    "                    that the file is stored, at most 30 seconds, or those of -t\n"
			    "    -r, --reply     wait for one message after each FILE and print `NAME: reply`,\n"
			    "                    after standard input alone the reply only\n"
			    "    -m, --message-size=BYTES  of each message; default 4048, which every kernel\n"
			    "                    sends, at most 4088\n"
			    "    -R, --retry=SECONDS  how long to send a message again that is in doubt, as the\n"
			    "                    connection was lost or the partition suspended; it may arrive\n"
			    "                    twice then. Default 10; 0: do not send it again\n"
			    "  recv [-j] [-n N] [-d DIR] [-t SECONDS] [-R SECONDS]\n"
			    "                    write messages to standard output\n"
			    "    -d, --dir=DIR   take file messages, store the files in DIR, tell their sender\n"
			    "    -j, --json      write a line of JSON for each message, with -d for each file\n"
			    "    -n, --count=N   end after N messages, with -d after N files\n"
			    "  listen -x COMMAND [-d DIR] [-J N] [-F TEXT] [-T SECONDS] [-R SECONDS]\n"
			    "    -x, --exec=COMMAND  run `sh -c COMMAND` for each message, the message on its\n"
			    "                    standard input and HVPIPE_SOURCE in its environment; what it\n"
			    "                    prints is the reply, if it succeeds\n"
			    "    -d, --dir=DIR   store files in DIR as recv does, and run COMMAND for each one,\n"
			    "                    the file on its standard input and its path in HVPIPE_FILE\n"
			    "    -J, --jobs=N    run up to N commands at a time, at most 64; default 1. Replies go in\n"
			    "                    the order in which they end\n"
			    "    -F, --on-failure=TEXT  the reply if it does not succeed; default: none\n"
			    "    -T, --command-timeout=SECONDS  stop the command then; default 60, 0: never\n"
			    "  ping [-n N] [-R SECONDS]\n"
			    "                    send N small messages, default 1, to the SOURCE that -s names, and\n"
			    "                    print how long until each was taken\n"
			    "  monitor [-j] [-n N]\n"
			    "                    print what passes between other programs and SOURCE, through hvpiped\n"
			    "    -j, --json      an object of JSON for each message\n"
			    "  status [-j]       the state of the pipe, who holds which source, hvpiped's counters\n"
			    "  doctor [-j] [-o FILE] [--root=DIR]\n"
			    "                    find out why the pipe does not work; with -s open that source\n"
			    "    -j, --json      the findings as JSON\n"
			    "    -o, --report=FILE  write FILE for the developers of hvpipe: findings and what\n"
			    "                    firmware and kernel say of the pipe\n"
			    "        --root=DIR  look below DIR, at a copy of another system's files\n"
			    "  wake              enable the pipe anew, when nothing comes through it any more: the\n"
			    "                    hypervisor announces again what waits; sends under way fail\n"
			    "  help              this\n"
			    "\n"
			    "  -s, --source=SOURCE   hmcN, or a source ID like 0x02000001; default hmc1\n"
			    "  -D, --direct          use the device, also where hvpiped answers\n"
			    "  -t, --timeout=SECONDS end with status 6 when no message comes for so long\n"
			    "  -h, --help\n"
			    "  -V, --version\n"
			    "\n"
			    "Exit status: 0 done; 1 failed; 2 wrong usage; 3 no hypervisor pipe here; 4 another\n"
			    "process holds the source; 5 nobody takes messages at the source; 6 no message within\n"
			    "-t SECONDS; 7 the pipe is suspended or disabled; 9 doctor has warnings; 10 a file was\n"
			    "refused; 11 unknown whether a file is stored; 130 or 143 ended by SIGINT or SIGTERM\n"
			    "before all was done.\n";

static void set_source(const char *text)
{
	if (hvpipe_parse_source(text, &options.source))
		usage_error("source '%s': hmc1 to hmc65535, or a number of 32 bits like 0x02000001 is needed", text);
	if (strlen(text) >= sizeof(options.source_name))
		usage_error("source '%s': too many digits", text);
	strcpy(options.source_name, text);
}

static unsigned int parse_jobs(const char *text)
{
	uint64_t jobs;

	if (!parse_number(text, 10, 1, JOBS_MAX, &jobs))
		usage_error("jobs '%s': a number from 1 to %d is needed", text, JOBS_MAX);
	return jobs;
}

static void print_usage(void)
{
	fputs(usage, stdout);
	exit(EXIT_SUCCESS);
}

/* An option of another command is wrong usage, as is an unknown one. */
static void parse_options(int argc, char **argv, const char *short_options)
{
	static const struct option long_options[] = { { "command-timeout", required_argument, NULL, 'T' },
						      { "count", required_argument, NULL, 'n' },
						      { "direct", no_argument, NULL, 'D' },
						      { "dir", required_argument, NULL, 'd' },
						      { "exec", required_argument, NULL, 'x' },
						      { "file", no_argument, NULL, 'f' },
						      { "help", no_argument, NULL, 'h' },
						      { "jobs", required_argument, NULL, 'J' },
						      { "json", no_argument, NULL, 'j' },
						      { "message-size", required_argument, NULL, 'm' },
						      { "on-failure", required_argument, NULL, 'F' },
						      { "reply", no_argument, NULL, 'r' },
						      { "report", required_argument, NULL, 'o' },
						      { "retry", required_argument, NULL, 'R' },
						      { "root", required_argument, NULL, 'C' },
						      { "source", required_argument, NULL, 's' },
						      { "timeout", required_argument, NULL, 't' },
						      { "version", no_argument, NULL, 'V' },
						      { 0 } };
	int opt;

	while ((opt = getopt_long(argc, argv, short_options, long_options, NULL)) != -1) {
		if (opt != '?' && !strchr(short_options, opt))
			usage_error("option -%c does not belong to this command", opt);
		switch (opt) {
		case 's':
			set_source(optarg);
			options.source_given = true;
			break;
		case 'f':
			options.file = true;
			break;
		case 'r':
			options.reply = true;
			break;
		case 'D':
			options.direct = true;
			break;
		case 'j':
			options.json = true;
			break;
		case 'J':
			options.jobs = parse_jobs(optarg);
			break;
		case 'n':
			options.count = parse_count(optarg);
			break;
		case 'd':
			options.dir = optarg;
			break;
		case 'm':
			options.message_size = parse_message_size(optarg, HVPIPE_MAX_PAYLOAD);
			break;
		case 't':
			options.timeout_ms = parse_timeout_ms(optarg);
			break;
		case 'R':
			options.retry_ms = parse_timeout_ms(optarg);
			break;
		case 'T':
			options.command_timeout_ms = parse_timeout_ms(optarg);
			break;
		case 'x':
			options.exec = optarg;
			break;
		case 'F':
			options.on_failure = optarg;
			break;
		case 'o':
			options.report = optarg;
			break;
		case 'C':
			options.root = optarg;
			break;
		case 'h':
			print_usage();
			break;
		case 'V':
			puts("hvpipe " HVPIPE_VERSION);
			exit(EXIT_SUCCESS);
		default:
			fputs("See `hvpipe --help`.\n", stderr);
			exit(EXIT_USAGE);
		}
	}
}

/* The options of each command, as getopt() takes them. */
static const struct {
	const char *name;
	const char *options;
} commands[] = {
	{ "send", "s:Dfrt:m:R:hV" },
	{ "recv", "s:Djn:d:t:R:hV" },
	{ "listen", "s:Dx:d:J:F:T:R:hV" },
	{ "ping", "s:Dn:R:hV" },
	{ "monitor", "s:Djn:hV" },
	{ "status", "s:DjhV" },
	{ "doctor", "s:Djo:C:hV" },
	{ "wake", "hV" },
	{ "help", "hV" },
};

static const char *find_command(const char *name)
{
	for (size_t i = 0; i < sizeof(commands) / sizeof(commands[0]); i++)
		if (!strcmp(commands[i].name, name))
			return commands[i].options;
	usage_error("no command '%s': send, recv, listen, ping, monitor, status, doctor, wake or help", name);
}

int main(int argc, char **argv)
{
	const char *command;

	begin_program();
	set_source("hmc1");
	parse_options(argc, argv, "+s:DhV");
	if (optind == argc) {
		fputs(usage, stderr);
		return EXIT_USAGE;
	}
	command = argv[optind];
	argc -= optind;
	argv += optind;
	argv[0] = (char *)program_name; /* getopt() begins its messages with it */
	optind = 0;			/* glibc: begin anew */
	parse_options(argc, argv, find_command(command));

	if (!strcmp(command, "help"))
		print_usage();
	if (!strcmp(command, "send")) {
		if (options.timeout_ms >= 0 && !options.reply && !options.file)
			usage_error("send -t: the time to wait for the answer or the reply; needs -f or -r");
		return run_send(argc - optind, argv + optind);
	}
	if (optind < argc)
		usage_error("%s: '%s' is one argument too many", command, argv[optind]);
	if (!strcmp(command, "recv"))
		return run_recv();
	if (!strcmp(command, "status"))
		return run_status();
	if (!strcmp(command, "ping"))
		return run_ping();
	if (!strcmp(command, "monitor"))
		return run_monitor();
	if (!strcmp(command, "doctor"))
		return run_doctor();
	if (!strcmp(command, "wake"))
		return run_wake();
	if (!options.exec)
		usage_error("listen: which COMMAND? Give it with -x");
	return run_listen();
}
