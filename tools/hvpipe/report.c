// SPDX-License-Identifier: GPL-2.0-or-later
/* hvpipe doctor --report: a file for people who cannot see the machine. */
#include "doctor.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

/* The lines of a file that have one of the words. */
static void report_lines(FILE *out, const char *path, const char *const *words)
{
	FILE *in = fopen(at("%s", path), "re");
	char line[1024];

	fprintf(out, "\n%s\n", path);
	while (in && fgets(line, sizeof(line), in)) {
		char *text = escape_text(line, strcspn(line, "\n"), ESCAPE_LINE);

		for (const char *const *word = words; text && *word; word++) {
			if (strstr(text, *word)) {
				fprintf(out, "  %s\n", text);
				break;
			}
		}
		free(text);
	}
	if (in)
		fclose(in);
}

/* The kernel's log, if we may read it. One read is one line. */
static void report_log(FILE *out)
{
	int fd = open(at("/dev/kmsg"), O_RDONLY | O_CLOEXEC | O_NONBLOCK);
	char line[8192];
	ssize_t n;

	fprintf(out, "\nkernel log%s\n", fd < 0 ? ": run as root to have it here" : "");
	while (fd >= 0 && ((n = read(fd, line, sizeof(line) - 1)) > 0 || (n < 0 && errno == EPIPE))) {
		char *text;

		if (n < 0)
			continue;
		line[n] = '\0';
		line[strcspn(line, "\n")] = '\0';
		text = escape_text(line, strlen(line), ESCAPE_LINE);
		if (text && (strstr(text, "hvpipe") || strstr(text, "rtas") || strstr(text, "RTAS")))
			fprintf(out, "  %s\n", text);
		free(text);
	}
	if (fd >= 0)
		close(fd);
}

/* A property of the device tree: its bytes in hexadecimal. */
static void report_property(FILE *out, const char *directory, const char *name)
{
	int fd = open(at("%s/%s", directory, name), O_RDONLY | O_CLOEXEC | O_NONBLOCK);
	unsigned char data[64];
	ssize_t n = fd < 0 ? -1 : read(fd, data, sizeof(data));

	if (n >= 0) {
		fprintf(out, "  %s/%s:", directory, name);
		for (ssize_t i = 0; i < n; i++)
			fprintf(out, " %02x", data[i]);
		putc('\n', out);
	}
	if (fd >= 0)
		close(fd);
}

/* All properties of a directory whose name has the word. */
static void report_properties(FILE *out, const char *directory, const char *word)
{
	DIR *dir = opendir(at("%s", directory));
	struct dirent *entry;

	while (dir && (entry = readdir(dir)))
		if (entry->d_name[0] != '.' && strstr(entry->d_name, word))
			report_property(out, directory, entry->d_name);
	if (dir)
		closedir(dir);
}

/* What the developers need to understand a machine that they cannot see. No serial numbers, names or addresses. */
void write_report(void)
{
	static const char *const cpu[] = { "cpu", "machine", "firmware", "MMU", NULL };
	static const char *const words[] = { "hvpipe", NULL };
	static const char *const any[] = { "", NULL };
	FILE *out = fopen(options.report, "wxe");

	if (!out)
		die(EXIT_FAILURE, "report %s: %s%s", options.report, strerror(errno),
		    errno == EEXIST ? "; name a file that does not exist" : "");
	fprintf(out, "Report of hvpipe doctor, version %s\n\n", HVPIPE_VERSION);
	print_findings(out);
	fprintf(out, "\ndevice tree\n");
	report_properties(out, RTAS, "hvpipe");
	report_properties(out, RTAS, "pipe-capable");
	report_property(out, RTAS, "ibm,set-system-parameter");
	report_property(out, RTAS, "check-exception");
	report_property(out, RTAS, "rtas-error-log-max");
	report_properties(out, EVENTS, "");
	report_property(out, "/proc/device-tree", "model");
	report_property(out, "/proc/device-tree", "compatible");
	report_lines(out, "/proc/version", any);
	report_lines(out, "/proc/cpuinfo", cpu);
	report_lines(out, "/proc/interrupts", words);
	report_lines(out, "/proc/devices", words);
	report_lines(out, "/proc/misc", words);
	report_lines(out, "/etc/os-release", any);
	report_log(out);
	if (fflush(out) || ferror(out) || fclose(out))
		die(EXIT_FAILURE, "report %s: %s", options.report, strerror(errno));
	printf("report written to %s; it has no serial numbers, names or addresses, but read it before you send it\n",
	       options.report);
}
