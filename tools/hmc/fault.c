// SPDX-License-Identifier: GPL-2.0-or-later
/* Faults of an HMC on its link, on demand. The tables are the grammar. */
#include "fault.h"

#include <inttypes.h>
#include <string.h>

#define FRAME(t)     (1u << HVPIPE_LINK_##t)
#define BEHIND_STATE (FRAME(MESSAGE) | FRAME(ACK) | FRAME(NACK))
#define ANY	     (BEHIND_STATE | FRAME(STATE))

static const struct {
	const char *name;
	unsigned int frames; /* struck by default */
	unsigned int possible;
} kinds[HMC_FAULT_KINDS] = {
	[HMC_FAULT_CLOSE] = { "close", BEHIND_STATE, ANY },
	[HMC_FAULT_STALL] = { "stall", BEHIND_STATE, ANY },
	[HMC_FAULT_CUT] = { "cut", BEHIND_STATE, ANY },
	[HMC_FAULT_RANDOM] = { "random", BEHIND_STATE, ANY },
	[HMC_FAULT_VERSION] = { "version", BEHIND_STATE, ANY },
	[HMC_FAULT_TYPE] = { "type", BEHIND_STATE, ANY },
	[HMC_FAULT_LENGTH] = { "length", BEHIND_STATE, ANY },
	[HMC_FAULT_RESERVED] = { "reserved", BEHIND_STATE, ANY },
	[HMC_FAULT_SEQUENCE] = { "sequence", BEHIND_STATE, ANY },
	[HMC_FAULT_GAP] = { "gap", BEHIND_STATE, BEHIND_STATE },
	[HMC_FAULT_ACK] = { "ack", BEHIND_STATE, BEHIND_STATE },
	[HMC_FAULT_SECOND_STATE] = { "second-state", BEHIND_STATE, BEHIND_STATE },
	[HMC_FAULT_NO_STATE] = { "no-state", FRAME(STATE), FRAME(STATE) },
	[HMC_FAULT_SESSION] = { "session", FRAME(STATE), FRAME(STATE) },
};

static const struct {
	const char *name;
	unsigned int frames;
} frames[] = {
	{ "message", FRAME(MESSAGE) },
	{ "ack", FRAME(ACK) },
	{ "nack", FRAME(NACK) },
	{ "state", FRAME(STATE) },
};

static const struct {
	const char *name;
	size_t value;
	unsigned int low;
} numbers[] = {
	{ "count", offsetof(struct hmc_fault, count), 0 },
	{ "every", offsetof(struct hmc_fault, every), 1 },
	{ "ms", offsetof(struct hmc_fault, ms), 0 },
};

static unsigned int *number(const struct hmc_fault *fault, size_t i)
{
	return (unsigned int *)((char *)fault + numbers[i].value);
}

const char *hmc_fault_name(enum hmc_fault_kind kind)
{
	return kinds[kind].name;
}

static bool G_GNUC_PRINTF(2, 3) set_error(GError **error, const char *format, ...)
{
	va_list args;

	va_start(args, format);
	if (error)
		*error = g_error_new_valist(G_IO_ERROR, G_IO_ERROR_INVALID_ARGUMENT, format, args);
	va_end(args);
	return false;
}

/* The names in a table: "a, b, c". */
#define NAMES(table, names)                                                                      \
	do {                                                                                     \
		(names) = g_string_new(NULL);                                                    \
		for (size_t i_ = 0; i_ < G_N_ELEMENTS(table); i_++)                              \
			g_string_append_printf(names, "%s%s", i_ ? ", " : "", (table)[i_].name); \
	} while (0)

static bool parse_kind(struct hmc_fault *fault, const char *word, GError **error)
{
	GString *names;

	for (int i = 0; i < HMC_FAULT_KINDS; i++) {
		if (!strcmp(word, kinds[i].name)) {
			*fault = (struct hmc_fault){ .kind = i, .frames = kinds[i].frames, .count = 1, .every = 1 };
			return true;
		}
	}
	NAMES(kinds, names);
	set_error(error, "fault '%s' is not known, choose from: %s", word, names->str);
	g_string_free(names, TRUE);
	return false;
}

static bool parse_key(struct hmc_fault *fault, const char *word, GError **error)
{
	const char *name = kinds[fault->kind].name, *value = strchr(word, '=');
	size_t len = value ? (size_t)(value++ - word) : strlen(word);
	GString *names;
	guint64 n;

	for (size_t i = 0; value && i < G_N_ELEMENTS(numbers); i++) {
		if (strlen(numbers[i].name) != len || strncmp(word, numbers[i].name, len))
			continue;
		if (numbers[i].value == offsetof(struct hmc_fault, ms) && fault->kind != HMC_FAULT_STALL)
			return set_error(error, "'%s' in '%s': only a stall takes time", word, name);
		if (!g_ascii_string_to_unsigned(value, 10, numbers[i].low, G_MAXINT, &n, NULL))
			return set_error(error, "'%s' in '%s' is not a number from %u to %d", word, name,
					 numbers[i].low, G_MAXINT);
		*number(fault, i) = n;
		return true;
	}
	if (value && len == strlen("frame") && !strncmp(word, "frame", len)) {
		for (size_t i = 0; i < G_N_ELEMENTS(frames); i++) {
			if (strcmp(value, frames[i].name))
				continue;
			if (!(frames[i].frames & kinds[fault->kind].possible))
				return set_error(error, "'%s' in '%s': it cannot strike there, leave it out", word,
						 name);
			fault->frames = frames[i].frames;
			return true;
		}
		NAMES(frames, names);
		set_error(error, "'%s' in '%s' is no frame that an HMC sends, choose from: %s", word, name, names->str);
		g_string_free(names, TRUE);
		return false;
	}
	return set_error(error, "'%s' does not know '%s', choose from: frame=NAME, count=N, every=N%s", name, word,
			 fault->kind == HMC_FAULT_STALL ? ", ms=N" : "");
}

static struct hmc_fault *parse_fault(const char *text, GError **error)
{
	struct hmc_fault *fault = g_new0(struct hmc_fault, 1);
	char **words = g_strsplit(text, ",", 0);
	bool ok = parse_kind(fault, words[0] ? words[0] : "", error);

	for (int i = 1; ok && words[i]; i++)
		ok = parse_key(fault, words[i], error);
	g_strfreev(words);
	if (!ok)
		g_clear_pointer(&fault, g_free);
	return fault;
}

GList *hmc_faults_parse(const char *text, GError **error)
{
	char **texts = g_strsplit(text, ";", 0);
	GList *faults = NULL;

	for (int i = 0; texts[i]; i++) {
		struct hmc_fault *fault = parse_fault(texts[i], error);

		if (!fault) {
			hmc_faults_free(faults);
			faults = NULL;
			break;
		}
		faults = g_list_append(faults, fault);
	}
	g_strfreev(texts);
	return faults;
}

void hmc_faults_free(GList *faults)
{
	g_list_free_full(faults, g_free);
}

char *hmc_faults_print(const GList *faults)
{
	GString *text = g_string_new(NULL);

	for (; faults; faults = faults->next) {
		const struct hmc_fault *fault = faults->data;

		g_string_append_printf(text, "%s%s", text->len ? ";" : "", kinds[fault->kind].name);
		for (size_t i = 0; i < G_N_ELEMENTS(frames); i++)
			if (fault->frames == frames[i].frames && fault->frames != kinds[fault->kind].frames)
				g_string_append_printf(text, ",frame=%s", frames[i].name);
		for (size_t i = 0; i < G_N_ELEMENTS(numbers); i++)
			if (numbers[i].value != offsetof(struct hmc_fault, ms) || fault->kind == HMC_FAULT_STALL)
				g_string_append_printf(text, ",%s=%u", numbers[i].name, *number(fault, i));
	}
	return g_string_free(text, FALSE);
}

bool hmc_faults_strike(GList **faults, HvpipeLinkType type, struct hmc_fault *strike)
{
	for (GList *item = *faults; item; item = item->next) {
		struct hmc_fault *fault = item->data;

		if (!(fault->frames & 1u << type) || ++fault->seen % fault->every)
			continue;
		*strike = *fault;
		if (fault->count && !--fault->count) {
			*faults = g_list_delete_link(*faults, item);
			g_free(fault);
		}
		return true;
	}
	return false;
}

size_t hmc_fault_corrupt(enum hmc_fault_kind kind, uint8_t *frame, size_t size, const HvpipeLinkHmcState *state,
			 uint64_t queued)
{
	switch (kind) {
	case HMC_FAULT_CLOSE:
		return 0;
	case HMC_FAULT_CUT:
		return size / 2;
	case HMC_FAULT_RANDOM:
		for (size = 0; size < 64; size++)
			frame[size] = g_random_int();
		/* Never a valid frame by chance. */
		if (frame[0] == HVPIPE_LINK_VERSION)
			frame[0]++;
		return size;
	case HMC_FAULT_VERSION:
		frame[0] = HVPIPE_LINK_VERSION + 1;
		return size;
	case HMC_FAULT_TYPE:
		frame[1] = HVPIPE_LINK_CLOSE + 1;
		return size;
	case HMC_FAULT_LENGTH:
		hvpipe_link_put16(frame + 2, HVPIPE_LINK_MAX_PAYLOAD + 1);
		return size;
	case HMC_FAULT_RESERVED:
		hvpipe_link_put32(frame + 4, 1);
		return size;
	case HMC_FAULT_SEQUENCE:
		/* Only a STATE has sequence 0. */
		hvpipe_link_put64(frame + 8, frame[1] == HVPIPE_LINK_STATE);
		return size;
	case HMC_FAULT_GAP:
		hvpipe_link_pack_header(frame, HVPIPE_LINK_MESSAGE, 1, queued + 2);
		frame[HVPIPE_LINK_HEADER_SIZE] = 0;
		return HVPIPE_LINK_HEADER_SIZE + 1;
	case HMC_FAULT_ACK:
	case HMC_FAULT_NO_STATE:
		/* At most one message beyond those that were taken can be on its way. */
		hvpipe_link_pack_header(frame, HVPIPE_LINK_ACK, 0, state->taken + 2);
		return HVPIPE_LINK_HEADER_SIZE;
	case HMC_FAULT_SECOND_STATE:
		return hvpipe_link_pack_hmc_state(frame, state);
	case HMC_FAULT_SESSION:
		hvpipe_link_put64(frame + HVPIPE_LINK_HEADER_SIZE + 8, 0); /* the session */
		return size;
	case HMC_FAULT_STALL:
	case HMC_FAULT_KINDS:
		break;
	}
	return size;
}
