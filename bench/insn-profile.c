// SPDX-License-Identifier: GPL-2.0-or-later
/*
 * A plugin for QEMU's TCG that counts the instructions of each kernel function
 * of the guest between marks of bench/bench.c. For a guest with one CPU.
 *
 * Arguments: symbols=FILE  the output of nm -n for vmlinux
 *            out=FILE      gets a line for each function and row: the row's
 *                          number, how often it was marked, how many
 *                          instructions the function executed, its name
 *
 * "user" is the program, "firmware" everything else outside the kernel: RTAS.
 */

#include <errno.h>
#include <glib.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <qemu-plugin.h>

#define ROWS	  16
#define USER	  0x10000000 /* addresses of a static program */
#define USER_END  0x20000000
#define KERNEL	  0xc000000000000000
#define WAKEUP	  6 /* the row of bench.c's wakeup */
#define INTERRUPT 0xc000000000004500
#define MARK	  0x60004850 /* ori 0,0,0x4850: MARK(0) of bench.c */

struct symbol {
	uint64_t address;
	char *name;
};

QEMU_PLUGIN_EXPORT int qemu_plugin_version = QEMU_PLUGIN_VERSION;

static GArray *symbols;	   /* by address; the last one is the end of the kernel */
static uint64_t *executed; /* by function: the symbols, then "user" and "firmware" */
static uint64_t *before;   /* the same at the begin of the row */
static uint64_t *totals[ROWS];
static uint64_t marked[ROWS];
static unsigned int row; /* the current row, 0: none */
static const char *out;

/* The function that the instruction at @address belongs to. */
static size_t function_at(uint64_t address)
{
	size_t low = 0, high = symbols->len - 1;

	if (address >= USER && address < USER_END)
		return symbols->len;
	/* In real mode the kernel runs at its physical address, 0 and up. */
	address |= KERNEL;
	if (address < g_array_index(symbols, struct symbol, 0).address ||
	    address >= g_array_index(symbols, struct symbol, high).address)
		return symbols->len + 1;
	while (high - low > 1) {
		size_t middle = (low + high) / 2;

		if (g_array_index(symbols, struct symbol, middle).address <= address)
			low = middle;
		else
			high = middle;
	}
	return low;
}

static void mark(unsigned int cpu, void *data)
{
	for (size_t i = 0; row && i < symbols->len + 2; i++)
		totals[row][i] += executed[i] - before[i];
	row = GPOINTER_TO_UINT(data);
	memcpy(before, executed, (symbols->len + 2) * sizeof(*before));
	marked[row]++;
}

/* The event's interrupt divides the wake-up: a row of its own begins there. */
static void interrupt(unsigned int cpu, void *data)
{
	if (row == WAKEUP)
		mark(cpu, GUINT_TO_POINTER(WAKEUP + 1));
}

static void translate(qemu_plugin_id_t id, struct qemu_plugin_tb *tb)
{
	for (size_t i = 0; i < qemu_plugin_tb_n_insns(tb); i++) {
		struct qemu_plugin_insn *insn = qemu_plugin_tb_get_insn(tb, i);
		uint64_t address = qemu_plugin_insn_vaddr(insn);
		size_t function = function_at(address);
		uint32_t code;

		memcpy(&code, qemu_plugin_insn_data(insn), sizeof(code));
		code = GUINT32_FROM_LE(code);
		if (function == symbols->len && code >= MARK && code < MARK + ROWS)
			qemu_plugin_register_vcpu_insn_exec_cb(insn, mark, QEMU_PLUGIN_CB_NO_REGS,
							       GUINT_TO_POINTER(code - MARK));
		else
			qemu_plugin_register_vcpu_insn_exec_inline(insn, QEMU_PLUGIN_INLINE_ADD_U64,
								   &executed[function], 1);
		if (address == INTERRUPT)
			qemu_plugin_register_vcpu_insn_exec_cb(insn, interrupt, QEMU_PLUGIN_CB_NO_REGS, NULL);
	}
}

static void finish(qemu_plugin_id_t id, void *data)
{
	FILE *file = fopen(out, "w");

	if (!file) {
		fprintf(stderr, "insn-profile: %s: %s\n", out, strerror(errno));
		return;
	}
	for (unsigned int r = 1; r < ROWS; r++) {
		for (size_t i = 0; i < symbols->len + 2; i++) {
			const char *name = i < symbols->len  ? g_array_index(symbols, struct symbol, i).name :
					   i == symbols->len ? "user" :
							       "firmware";

			if (totals[r][i])
				fprintf(file, "%u %" PRIu64 " %" PRIu64 " %s\n", r, marked[r], totals[r][i], name);
		}
	}
	if (fclose(file))
		fprintf(stderr, "insn-profile: %s: %s\n", out, strerror(errno));
}

static gboolean read_symbols(const char *name)
{
	FILE *file = fopen(name, "r");
	char line[1024], text[1024], type;
	struct symbol symbol;

	if (!file) {
		fprintf(stderr, "insn-profile: %s: %s\n", name, strerror(errno));
		return FALSE;
	}
	while (fgets(line, sizeof(line), file)) {
		if (sscanf(line, "%" SCNx64 " %c %1023s", &symbol.address, &type, text) != 3 || symbol.address < KERNEL)
			continue;
		/* Skip further names of the same address. */
		if (symbols->len && g_array_index(symbols, struct symbol, symbols->len - 1).address == symbol.address)
			continue;
		symbol.name = g_strdup(text);
		g_array_append_val(symbols, symbol);
	}
	fclose(file);
	if (!symbols->len)
		fprintf(stderr, "insn-profile: %s has no symbols of a kernel\n", name);
	return symbols->len;
}

QEMU_PLUGIN_EXPORT int qemu_plugin_install(qemu_plugin_id_t id, const qemu_info_t *info, int argc, char **argv)
{
	const char *names = NULL;

	for (int i = 0; i < argc; i++) {
		if (g_str_has_prefix(argv[i], "symbols="))
			names = argv[i] + strlen("symbols=");
		else if (g_str_has_prefix(argv[i], "out="))
			out = g_strdup(argv[i] + strlen("out="));
		else
			fprintf(stderr, "insn-profile: no such argument: %s\n", argv[i]);
	}
	if (!names || !out) {
		fprintf(stderr, "insn-profile: needs symbols=FILE and out=FILE\n");
		return -1;
	}
	symbols = g_array_new(FALSE, FALSE, sizeof(struct symbol));
	if (!read_symbols(names))
		return -1;
	executed = g_new0(uint64_t, symbols->len + 2);
	before = g_new0(uint64_t, symbols->len + 2);
	for (int r = 0; r < ROWS; r++)
		totals[r] = g_new0(uint64_t, symbols->len + 2);
	qemu_plugin_register_vcpu_tb_trans_cb(id, translate);
	qemu_plugin_register_atexit_cb(id, finish, NULL);
	return 0;
}
