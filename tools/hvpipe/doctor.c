// SPDX-License-Identifier: GPL-2.0-or-later
/* hvpipe doctor: what firmware, kernel and system say of the pipe, and what to do about it. */
#include "doctor.h"

#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <limits.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#define DEVICE "/dev/papr-hvpipe"

enum result { OK, WARNING, ERROR };

static const char *const result_names[] = { "ok", "warning", "error" };

struct finding {
	const char *check;
	enum result result;
	char *text;
	const char *remedy; /* NULL when there is nothing to do */
};

static struct finding findings[32];
static size_t nr_findings;
static bool has_pipe, has_driver;

/* Note what a check has found. Text from files is escaped where it is shown. */
static void find(const char *check, enum result result, const char *remedy, const char *format, ...)
	__attribute__((format(printf, 4, 5)));

static void find(const char *check, enum result result, const char *remedy, const char *format, ...)
{
	struct finding *finding = &findings[nr_findings];
	va_list args;

	if (nr_findings == sizeof(findings) / sizeof(findings[0]))
		return;
	va_start(args, format);
	if (vasprintf(&finding->text, format, args) < 0)
		die(EXIT_FAILURE, "%s", strerror(ENOMEM));
	va_end(args);
	finding->check = check;
	finding->result = result;
	finding->remedy = remedy;
	nr_findings++;
}

const char *at(const char *format, ...)
{
	static char path[PATH_MAX];
	va_list args;
	int len = snprintf(path, sizeof(path), "%s", options.root ? options.root : "");

	va_start(args, format);
	if (len >= 0 && (size_t)len < sizeof(path))
		vsnprintf(path + len, sizeof(path) - len, format, args);
	va_end(args);
	return path;
}

/* The first bytes of a file, as a string without newlines at its end; false when it cannot be read. */
static bool read_text(const char *path, char *text, size_t size)
{
	int fd = open(path, O_RDONLY | O_CLOEXEC | O_NONBLOCK);
	ssize_t n = fd < 0 ? -1 : read(fd, text, size - 1);

	if (fd >= 0)
		close(fd);
	text[n > 0 ? n : 0] = '\0';
	while (n > 0 && (text[n - 1] == '\n' || text[n - 1] == '\0'))
		text[--n] = '\0';
	return n >= 0;
}

static bool exists(const char *path)
{
	return !access(path, F_OK);
}

static void check_firmware(void)
{
	static const char *const calls[] = { "ibm,send-hvpipe-msg", "ibm,receive-hvpipe-msg",
					     "ibm,set-system-parameter", "check-exception" };
	bool ok = true;

	if (!exists(at("%s", RTAS))) {
		find("firmware", ERROR, "run this in a logical partition of a Power system",
		     "no RTAS: this is no partition under PowerVM, nor under a hypervisor with the same interface");
		return;
	}
	if (!exists(at("%s/ibm,hypervisor-pipe-capable", RTAS))) {
		find("firmware", ERROR,
		     "it needs firmware with the hypervisor pipe; update the firmware of the system, and that of "
		     "its HMC",
		     "the hypervisor offers this partition no pipe (ibm,hypervisor-pipe-capable is not there)");
		return;
	}
	has_pipe = true;
	find("firmware", OK, NULL, "the hypervisor offers its pipe");
	for (size_t i = 0; i < sizeof(calls) / sizeof(calls[0]); i++) {
		if (!exists(at("%s/%s", RTAS, calls[i]))) {
			find("calls", ERROR, "report this to the vendor of the firmware", "no RTAS call %s", calls[i]);
			ok = false;
		}
	}
	if (ok)
		find("calls", OK, NULL, "all RTAS calls of the pipe are there");
	if (!exists(at("%s/interrupts", EVENTS)))
		find("events", ERROR, "report this to the vendor of the firmware",
		     "no interrupt that announces messages (%s)", EVENTS);
	else
		find("events", OK, NULL, "messages are announced by an interrupt");
}

/* 6.18.32 as 6018032, 0 for what is no version. */
static unsigned int parse_release(const char *release)
{
	unsigned int major, minor, patch = 0;

	if (sscanf(release, "%u.%u.%u", &major, &minor, &patch) < 2 || major > 999 || minor > 999 || patch > 999)
		return 0;
	return (major * 1000 + minor) * 1000 + patch;
}

/* Only for the driver that Linux ships. Distributions carry fixes of their own, so it may be good nevertheless. */
static void check_release(const char *release)
{
	static const struct {
		unsigned int first, last;
		const char *text;
	} bad[] = {
		{ 6018032, 6018032, "opening a source panics the kernel (CVE-2026-46118, mended in 6.18.33)" },
		{ 6019000, 7000006, "opening a source panics the kernel (CVE-2026-46118, mended in 7.0.7)" },
		{ 6018000, 6018029, "reading from a source shows kernel memory (CVE-2026-46182, mended in 6.18.30)" },
		{ 6019000, 7000006, "reading from a source shows kernel memory (CVE-2026-46182, mended in 7.0.7)" },
	};
	unsigned int version = parse_release(release);
	bool found = false;

	for (size_t i = 0; i < sizeof(bad) / sizeof(bad[0]); i++) {
		if (version < bad[i].first || version > bad[i].last)
			continue;
		find("release", WARNING, "update the kernel, or make sure that your distribution's has the fix",
		     "Linux %s: %s", release, bad[i].text);
		found = true;
	}
	/* Seen on 7.2.13, and read in the source of 7.3.4. */
	if (version >= 6018000 && version <= 7003004) {
		find("release", WARNING,
		     "`hvpipe wake` may start it again; let the HMC send one message at a time and wait "
		     "for its answer, or use this project's driver",
		     "Linux %s: a message that comes while another one is received can stop the pipe", release);
		found = true;
	}
	if (!found)
		find("release", OK, NULL, "Linux %s is not known to be bad", release);
}

static void check_driver(void)
{
	char release[128];

	if (!read_text(at("/proc/sys/kernel/osrelease"), release, sizeof(release)))
		strcpy(release, "of unknown release");
	has_driver = exists(at("/sys/class/misc/papr-hvpipe")) || exists(at("%s", DEVICE));
	if (!has_driver) {
		/* Without a pipe every driver leaves at boot, so that its absence tells nothing. */
		if (!has_pipe)
			return;
		find("driver", ERROR,
		     "use a kernel for Power that has it: Linux 6.18 or later, or one with this project's driver",
		     "the kernel, Linux %s, has no papr-hvpipe driver, or it found no pipe when it booted", release);
		return;
	}
	if (exists(at("/sys/module/papr_hvpipe/parameters/hold_after_ms"))) {
		find("driver", OK, NULL, "this project's driver in Linux %s", release);
		return;
	}
	find("driver", OK, NULL, "the driver that Linux ships; it does not tell its state, and counts nothing");
	check_release(release);
}

/* The group's name from /etc/group, or its number. */
static const char *group_name(gid_t gid)
{
	static char name[64];
	FILE *groups = fopen(at("/etc/group"), "re");
	char line[1024];

	snprintf(name, sizeof(name), "%u", gid);
	while (groups && fgets(line, sizeof(line), groups)) {
		char *colon = strchr(line, ':'), *number = colon ? strchr(colon + 1, ':') : NULL;

		if (number && strtoul(number + 1, NULL, 10) == gid) {
			*colon = '\0';
			snprintf(name, sizeof(name), "%.63s", line);
			break;
		}
	}
	if (groups)
		fclose(groups);
	return name;
}

static void check_device(void)
{
	struct stat st;

	if (stat(at("%s", DEVICE), &st)) {
		find("device", ERROR,
		     "start udev, or make the node with the numbers in /sys/class/misc/papr-hvpipe/dev", "%s: %s",
		     DEVICE, strerror(errno));
		return;
	}
	if (!S_ISCHR(st.st_mode) && !options.root) {
		find("device", ERROR, "remove it and let udev make it", "%s is no device", DEVICE);
		return;
	}
	if (access(at("%s", DEVICE), R_OK | W_OK))
		find("device", WARNING, "run as root, or as a member of a group that may read and write it",
		     "%s: you may not use it (user %u, group %s, mode %04o)", DEVICE, st.st_uid, group_name(st.st_gid),
		     st.st_mode & 07777);
	else
		find("device", OK, NULL, "%s: you may use it (user %u, group %s, mode %04o)", DEVICE, st.st_uid,
		     group_name(st.st_gid), st.st_mode & 07777);
}

static int find_holder(const struct hvpipe_holder *holder, void *data)
{
	unsigned int *count = data;
	char source[64] = "a source that this driver does not tell";
	char text[64];

	if (holder->source >> 16 == 0x0200)
		snprintf(source, sizeof(source), "hmc%u", holder->source & 0xffff);
	else if (holder->source)
		snprintf(source, sizeof(source), "0x%08" PRIx32, holder->source);
	snprintf(text, sizeof(text), "process %d (%s)", (int)holder->pid, holder->command);
	find("holders", OK, NULL, "%s holds %s", text, source);
	/* So many are enough to see. */
	return ++*count >= 8;
}

/* The state that our driver tells. Opens the device and no source. */
static void check_pipe(void)
{
	struct hvpipe_status status;
	unsigned int count = 0;

	if (options.root)
		return;
	if (!hvpipe_get_status(&status)) {
		if (!strcmp(status.state, "suspended"))
			find("pipe", WARNING, "wait until the partition's move is over", "the pipe is suspended");
		else if (!strcmp(status.state, "disabled"))
			find("pipe", ERROR,
			     "look for papr-hvpipe in the kernel's log; the driver tries again at each resume",
			     "the pipe is disabled: the hypervisor did not let the kernel enable it");
		else if (strcmp(status.state, "unknown"))
			find("pipe", OK, NULL, "the pipe is %s", status.state);
	}
	if (hvpipe_each_holder(find_holder, &count) < 0)
		find("holders", WARNING, "mount /proc", "/proc: %s", strerror(errno));
	else if (!count)
		find("holders", OK, NULL,
		     geteuid() ? "none of your processes holds a source; others' are not shown" :
				 "no process holds a source");
}

static void check_service(void)
{
	static const char *const units[] = { "/etc/systemd/system", "/usr/lib/systemd/system", "/lib/systemd/system" };
	bool installed = false;
	char processes[16];

	for (size_t i = 0; i < sizeof(units) / sizeof(units[0]); i++)
		installed |= exists(at("%s/hvpiped.service", units[i]));
	if (!installed)
		return;
	read_text(at("/sys/fs/cgroup/system.slice/hvpiped.service/cgroup.procs"), processes, sizeof(processes));
	if (processes[0])
		find("service", OK, NULL, "hvpiped runs");
	else
		find("service", WARNING, "systemctl status hvpiped", "hvpiped is installed and does not run");
}

static void check_source(void)
{
	struct hvpipe *pipe = hvpipe_open(options.source);

	if (pipe) {
		find("source", OK, NULL, "%s can be opened; whether somebody takes messages there only a send tells",
		     options.source_name);
		hvpipe_close(pipe);
	} else if (errno == EALREADY) {
		find("source", WARNING, "end the process that holds it, see `hvpipe status`",
		     "%s is held by another process", options.source_name);
	} else {
		find("source", ERROR, NULL, "%s: %s", options.source_name,
		     errno == EINVAL ? "no source ID that this kernel knows" : no_device_text(errno));
	}
}

static void print_json_string(FILE *out, const char *text)
{
	char *safe = escape_text(text, strlen(text), ESCAPE_LINE);

	putc('"', out);
	for (const char *p = safe ? safe : ""; *p; p++) {
		if (*p == '"' || *p == '\\')
			putc('\\', out);
		putc(*p, out);
	}
	putc('"', out);
	free(safe);
}

static void print_json(enum result worst)
{
	printf("{\n  \"version\": \"%s\",\n  \"worst\": \"%s\",\n  \"findings\": [", HVPIPE_VERSION,
	       result_names[worst]);
	for (size_t i = 0; i < nr_findings; i++) {
		printf("%s\n    {\"check\": \"%s\", \"result\": \"%s\", \"text\": ", i ? "," : "", findings[i].check,
		       result_names[findings[i].result]);
		print_json_string(stdout, findings[i].text);
		fputs(", \"remedy\": ", stdout);
		if (findings[i].remedy)
			print_json_string(stdout, findings[i].remedy);
		else
			fputs("null", stdout);
		putchar('}');
	}
	puts("\n  ]\n}");
}

void print_findings(FILE *out)
{
	for (size_t i = 0; i < nr_findings; i++) {
		const struct finding *one = &findings[i];
		char *text = escape_text(one->text, strlen(one->text), ESCAPE_LINE);

		fprintf(out, "%-8s %-9s %s%s%s\n", result_names[one->result], one->check, text ? text : "",
			one->remedy ? "; " : "", one->remedy ? one->remedy : "");
		free(text);
	}
}

int run_doctor(void)
{
	enum result worst = OK;

	if (options.root && options.source_given)
		usage_error("doctor: --source opens a source of this system, and --root is for the files of another");
	check_firmware();
	check_driver();
	if (has_driver) {
		check_device();
		check_pipe();
		check_service();
	}
	if (options.source_given)
		check_source();

	for (size_t i = 0; i < nr_findings; i++)
		if (findings[i].result > worst)
			worst = findings[i].result;
	if (options.json)
		print_json(worst);
	else
		print_findings(stdout);
	if (options.report)
		write_report();
	return worst == ERROR ? EXIT_FAILURE : worst == WARNING ? EXIT_WARNING : EXIT_SUCCESS;
}
