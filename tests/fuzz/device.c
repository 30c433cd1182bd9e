// SPDX-License-Identifier: GPL-2.0-or-later
/*
 * The hypervisor's device, as a whole: what an HMC writes to its link and what a partition's RTAS calls hand over, in
 * any order. The input is a list of operations. They are done twice, with the HMC's bytes cut into other pieces, and all
 * that the HMC, the partition and people see must be the same.
 */
#include "frames.h"
#include "spapr_hvpipe_fault.c"
#include "spapr_hvpipe.c"

#define RAM 0x6000
#define LIST 0x1000	/* where send finds its list of buffers, and these */
#define BUFFERS 0x2000
#define HMCS 2
#define QUEUE_LIMIT 4

/* An HMC's end of the link. */
struct hmc {
	SpaprHvpipeSource *source;
	GByteArray *in;		/* towards the device, not read by it yet */
	GByteArray *out;	/* from the device, of this connection */
	size_t room;		/* bytes that the socket takes */
	bool open;
	bool dies;		/* at the next write to it */
	FEWatchFunc watch;
};

SpaprMachineState fuzz_machine;
SpaprHvpipe *fuzz_pipe;
AddressSpace address_space_memory;

static MemoryRegion ram_region, no_region;
static uint8_t ram[RAM];
static uint32_t call_in[4], call_out[4];
static struct hmc hmcs[HMCS];
static SpaprHvpipeSource *echo;
static GString *seen;
static bool whole;
static uint32_t seed;

void error_report(const char *format, ...)
{
	va_list args;

	va_start(args, format);
	g_string_append_vprintf(seen, format, args);
	va_end(args);
}

void qemu_irq_pulse(qemu_irq irq)
{
	(void)irq;
	g_string_append(seen, "irq ");
}

uint32_t rtas_ld(target_ulong address, int n)
{
	(void)address;
	return call_in[n];
}

void rtas_st(target_ulong address, int n, uint32_t value)
{
	(void)address;
	call_out[n] = value;
}

MemoryRegion *address_space_translate(AddressSpace *as, hwaddr address, hwaddr *xlat, hwaddr *len, bool is_write, int attrs)
{
	(void)as;
	(void)is_write;
	(void)attrs;
	*xlat = address;
	if (address >= RAM)
		return &no_region;
	*len = MIN(*len, RAM - address);
	return &ram_region;
}

bool memory_access_is_direct(MemoryRegion *region, bool is_write)
{
	(void)is_write;
	return region == &ram_region;
}

int address_space_rw(AddressSpace *as, hwaddr address, int attrs, void *buf, hwaddr len, bool is_write)
{
	(void)as;
	(void)attrs;
	CHECK(!len || (address <= RAM && len <= RAM - address));
	if (is_write)
		memcpy(ram + (len ? address : 0), buf, len);
	else
		memcpy(buf, ram + (len ? address : 0), len);
	return MEMTX_OK;
}

void spapr_hvpipe_register_event_source(SpaprMachineState *machine, int irq)
{
	(void)machine;
	(void)irq;
}

SpaprEventLogEntry *spapr_hvpipe_event_log(SpaprMachineState *machine, uint8_t type, const void *section, size_t size)
{
	SpaprEventLogEntry *entry = g_malloc0(sizeof(*entry) + size);

	(void)machine;
	entry->type = type;
	entry->size = size;
	memcpy(entry->section, section, size);
	return entry;
}

static void hang_up(struct hmc *hmc)
{
	if (!hmc->open)
		return;
	hmc->open = false;
	check_output(hmc->out->data, hmc->out->len, HVPIPE_LINK_FROM_HV);
	g_byte_array_set_size(hmc->in, 0);
	hvpipe_link_event(hmc->source, CHR_EVENT_CLOSED);
	CHECK(!hmc->watch);
}

int qemu_chr_fe_write(CharBackend *chr, const uint8_t *buf, int len)
{
	struct hmc *hmc = chr->opaque;
	size_t n;

	CHECK(hmc->open && len > 0 && !hmc->watch);
	if (hmc->dies) {
		hmc->dies = false;
		hang_up(hmc);
		return -1;
	}
	n = MIN((size_t)len, hmc->room);
	hmc->room -= n;
	g_byte_array_append(hmc->out, buf, n);
	return n ? (int)n : -1;
}

guint qemu_chr_fe_add_watch(CharBackend *chr, GIOCondition condition, FEWatchFunc callback, void *opaque)
{
	struct hmc *hmc = chr->opaque;

	(void)condition;
	CHECK(hmc->open && !hmc->watch && opaque == hmc->source);
	hmc->watch = callback;
	return 1 + hmc - hmcs;
}

gboolean fuzz_remove_watch(guint id)
{
	CHECK(id >= 1 && id <= HMCS && hmcs[id - 1].watch);
	hmcs[id - 1].watch = NULL;
	return TRUE;
}

void qemu_chr_fe_disconnect(CharBackend *chr)
{
	hang_up(chr->opaque);
}

void qemu_chr_fe_accept_input(CharBackend *chr)
{
	(void)chr;	/* what waits is offered after each operation */
}

static void pump(struct hmc *hmc)
{
	while (hmc->open && hmc->in->len) {
		size_t room = hvpipe_link_can_receive(hmc->source), n;
		uint8_t *bytes;

		CHECK(room <= 2 * HVPIPE_LINK_MAX_FRAME);
		if (!room)
			return;
		n = whole ? hmc->in->len : piece(&seed, hmc->in->len);
		n = MIN(n, room);
		bytes = g_memdup2(hmc->in->data, n);
		g_byte_array_remove_range(hmc->in, 0, n);
		hvpipe_link_receive(hmc->source, bytes, n);
		g_free(bytes);
	}
}

static void put_frame(struct hmc *hmc, HvpipeLinkType type, uint64_t sequence, const uint8_t *payload, uint16_t len)
{
	uint8_t header[HVPIPE_LINK_HEADER_SIZE];

	hvpipe_link_pack_header(header, type, len, sequence);
	g_byte_array_append(hmc->in, header, sizeof(header));
	if (len)
		g_byte_array_append(hmc->in, payload, len);
}

static SpaprHvpipeSource *new_source(uint32_t id, struct hmc *hmc)
{
	SpaprHvpipeSource *source = g_new0(SpaprHvpipeSource, 1);
	Error *error = NULL;

	source->id = id;
	source->queue_limit = QUEUE_LIMIT;
	source->chr.opaque = hmc;
	source->echo = !hmc;
	hvpipe_source_realize(&source->parent, &error);
	CHECK(!error);
	return source;
}

static SpaprHvpipe *set_up(void)
{
	SpaprHvpipe *s = g_new0(SpaprHvpipe, 1);
	Error *error = NULL;

	fuzz_machine.hvpipe = NULL;
	fuzz_pipe = s;
	s->capable = true;
	hvpipe_init((Object *)s);
	hvpipe_realize(&s->parent, &error);
	CHECK(!error && fuzz_machine.hvpipe == s);
	for (int i = 0; i < HMCS; i++) {
		struct hmc *hmc = hmcs + i;

		memset(hmc, 0, sizeof(*hmc));
		hmc->in = g_byte_array_new();
		hmc->out = g_byte_array_new();
		hmc->source = new_source(0x02000001 + i, hmc);
	}
	echo = new_source(0x02000001 + HMCS, NULL);
	memset(ram, 0, sizeof(ram));
	seen = g_string_new(NULL);
	return s;
}

static void tear_down(SpaprHvpipe *s)
{
	HvpipeEntry *entry;

	for (int i = 0; i < HMCS; i++) {
		hang_up(hmcs + i);
		g_byte_array_unref(hmcs[i].in);
		g_byte_array_unref(hmcs[i].out);
		g_free(hmcs[i].source);
	}
	g_free(echo);
	while ((entry = QTAILQ_FIRST(&s->queue))) {
		QTAILQ_REMOVE(&s->queue, entry, next);
		g_free(entry);
	}
	g_free(s->raise_timer);
	hvpipe_finalize((Object *)s);
	g_free(s);
}

static void check_source(SpaprHvpipe *s, const SpaprHvpipeSource *source)
{
	uint64_t sequence = source->received;
	const HvpipeEntry *entry, *last = NULL;
	uint32_t queued = 0;

	QTAILQ_FOREACH(entry, &s->queue, next) {
		if (entry->source != source)
			continue;
		CHECK(entry->type == HVPIPE_EVENT_MESSAGE ? entry->size >= 1 && entry->size <= HVPIPE_PAYLOAD_MAX :
		      entry->type == HVPIPE_EVENT_LOST && (!last || last->type != HVPIPE_EVENT_LOST));
		if (entry->sequence) {
			CHECK(entry->sequence > sequence);
			sequence = entry->sequence;
		}
		queued += entry->type == HVPIPE_EVENT_MESSAGE;
		last = entry;
	}
	CHECK(source->last == last);
	CHECK(source->queued == queued);
	CHECK(queued <= QUEUE_LIMIT);
	CHECK(sequence < source->next_in);
	CHECK(source->link == HVPIPE_LINK_UP || (!source->out_size && !source->watch && !source->state_due &&
						 !source->ack_due && !source->message_due));
	CHECK(source->in_size < HVPIPE_LINK_MAX_FRAME && (!source->out_size || source->out_done < source->out_size));
}

static void check(SpaprHvpipe *s)
{
	CHECK(!s->announced || (s->enabled && QTAILQ_FIRST(&s->queue)));
	CHECK(!s->enabled || s->announced || !QTAILQ_FIRST(&s->queue));
	for (int i = 0; i < HMCS; i++)
		check_source(s, hmcs[i].source);
	check_source(s, echo);
}

static void call_send(SpaprHvpipe *s, uint32_t source, uint32_t list)
{
	call_in[0] = source;
	call_in[1] = list;
	rtas_ibm_send_hvpipe_msg(NULL, &fuzz_machine, 0, 2, 0, 1, 0);
	g_string_append_printf(seen, "send %d ", (int32_t)call_out[0]);
	(void)s;
}

/* A send in COUNT buffers of the same size. */
static void send_filled(SpaprHvpipe *s, uint32_t source, uint8_t count, uint16_t size, uint8_t byte)
{
	uint8_t *list = ram + LIST;

	count = 1 + count % 3;
	size %= HVPIPE_BUFFER_SIZE + 2;
	hvpipe_link_put64(list, 8 + 16 * count);
	for (int i = 0; i < count; i++) {
		hvpipe_link_put64(list + 8 + 16 * i, BUFFERS + i * HVPIPE_BUFFER_SIZE);
		hvpipe_link_put64(list + 16 + 16 * i, size);
		memset(ram + BUFFERS + i * HVPIPE_BUFFER_SIZE, byte, HVPIPE_BUFFER_SIZE);
	}
	call_send(s, source, LIST);
}

static void receive(SpaprHvpipe *s, uint32_t address, uint32_t room)
{
	const HvpipeEntry *head = QTAILQ_FIRST(&s->queue);
	g_autofree uint8_t *payload = head ? g_memdup2(head->payload, head->size) : NULL;
	uint32_t size = head ? head->size : 0, source = head ? head->source_id : 0;
	bool faults = s->faults;

	call_in[0] = address;
	call_in[1] = room;
	rtas_ibm_receive_hvpipe_msg(NULL, &fuzz_machine, 0, 2, 0, 3, 0);
	g_string_append_printf(seen, "receive %d %x %u ", (int32_t)call_out[0], call_out[1], call_out[2]);
	if (faults || call_out[0] || !call_out[2])
		return;
	CHECK(call_out[2] == size && size <= room && call_out[1] == source);
	CHECK(address <= RAM && size <= RAM - address && !memcmp(ram + address, payload, size));
}

static void check_exception(SpaprHvpipe *s)
{
	int status = RTAS_OUT_NO_ERRORS_FOUND;
	SpaprEventLogEntry *entry = spapr_hvpipe_check_exception(s, &status);

	g_string_append_printf(seen, "event %d ", entry ? entry->type : status);
	for (size_t i = 0; entry && i < entry->size; i++)
		g_string_append_printf(seen, "%02x", entry->section[i]);
	g_free(entry);
}

static void inject(SpaprHvpipe *s, struct input *in)
{
	size_t len;
	uint8_t *bytes = take_bytes(in, take_byte(in) % 64, &len);
	g_autofree char *text = g_strndup((char *)bytes, len);
	Error *error = NULL;

	free(bytes);
	hvpipe_set_inject((Object *)s, text, &error);
	if (error) {
		g_string_append(seen, error->text);
		error_free(error);
	}
}

static void operate(SpaprHvpipe *s, struct input *in)
{
	uint8_t operation = take_byte(in), bytes[HVPIPE_LINK_MAX_PAYLOAD];
	struct hmc *hmc = hmcs + (operation >> 4) % HMCS;
	uint32_t source = 0x02000001 + (operation >> 4) % (HMCS + 2);
	g_autofree char *text = NULL;
	HvpipeLinkHmcState hello;
	uint64_t sequence;
	size_t len;
	uint8_t *raw;

	switch (operation % 16) {
	case 0:
		hang_up(hmc);
		hmc->open = true;
		hmc->room = 1 << 20;
		g_byte_array_set_size(hmc->out, 0);
		hvpipe_link_event(hmc->source, CHR_EVENT_OPENED);
		break;
	case 1:
		hang_up(hmc);
		break;
	case 2:
		raw = take_bytes(in, take_byte(in), &len);
		g_byte_array_append(hmc->in, raw, len);
		free(raw);
		break;
	case 3:
		hello.session = take_byte(in) % 4;
		hello.taken = take_byte(in);
		hello.first = take_byte(in);
		g_byte_array_append(hmc->in, bytes, hvpipe_link_pack_hmc_state(bytes, &hello));
		break;
	case 4:
		sequence = hmc->source->next_in + (int8_t)take_byte(in);
		len = take_word(in) % (HVPIPE_LINK_MAX_PAYLOAD + 1);
		memset(bytes, take_byte(in), len);
		put_frame(hmc, HVPIPE_LINK_MESSAGE, sequence, bytes, len);
		break;
	case 5:
	case 6:
		sequence = hmc->source->last_out + (int8_t)take_byte(in);
		put_frame(hmc, operation % 16 == 5 ? HVPIPE_LINK_ACK : HVPIPE_LINK_NACK, sequence, NULL, 0);
		break;
	case 7:
		/* The pipe is on, off, or the parameter is no good one. */
		ram[LIST] = operation >> 7;
		ram[LIST + 1] = 1;
		ram[LIST + 2] = take_byte(in);
		g_string_append_printf(seen, "set %d ", spapr_hvpipe_set_system_parameter(s, LIST));
		break;
	case 8:
		len = take_word(in);
		send_filled(s, source, operation >> 6, len, take_byte(in));
		break;
	case 9:
		raw = take_bytes(in, take_byte(in), &len);
		memcpy(ram + RAM - 256, raw, len);
		free(raw);
		call_send(s, source, RAM - 256 + take_byte(in));
		break;
	case 10:
		len = take_word(in);
		receive(s, BUFFERS + 16 * len, take_word(in));
		break;
	case 11:
		check_exception(s);
		break;
	case 12:
		inject(s, in);
		break;
	case 13:
		hmc->room = take_word(in);
		if (hmc->watch) {
			FEWatchFunc writable = hmc->watch;

			hmc->watch = NULL;
			CHECK(writable(NULL, G_IO_OUT, hmc->source) == G_SOURCE_REMOVE);
		}
		break;
	case 14:
		switch (operation >> 4 & 3) {
		case 0:
			hvpipe_vm_change_state(s, true, 0);
			break;
		case 1:
			hvpipe_reset(s);
			break;
		case 2:
			hvpipe_raise_again(s);
			break;
		default:
			text = hvpipe_get_inject((Object *)s, NULL);
			g_string_append(seen, text);
		}
		break;
	case 15:
		hmc->dies = true;
		break;
	}
}

static GString *run(struct input in, bool in_whole)
{
	SpaprHvpipe *s = set_up();

	whole = in_whole;
	seed = in.left;
	while (in.left) {
		operate(s, &in);
		for (int i = 0; i < HMCS; i++)
			pump(hmcs + i);
		check(s);
	}
	for (int i = 0; i < HMCS; i++)
		g_string_append_len(seen, (char *)hmcs[i].out->data, hmcs[i].out->len);
	tear_down(s);
	return seen;
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	GString *one, *other;

	if (size > 1024)
		return 0;
	one = run((struct input) { data, size }, true);
	other = run((struct input) { data, size }, false);
	CHECK(g_string_equal(one, other));
	g_string_free(one, TRUE);
	g_string_free(other, TRUE);
	return 0;
}
