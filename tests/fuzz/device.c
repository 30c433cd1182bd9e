// SPDX-License-Identifier: GPL-2.0-or-later
/*
 * The hypervisor's device, as a whole: what an HMC writes to its link and what a partition's RTAS calls hand over, in
 * any order. The input is a list of operations. They are done twice, with the HMC's bytes cut into other pieces, and
 * all that the HMC, the partition and people see must be the same.
 *
 * The machine is also saved, and loaded as it is on the same machine or another one: that is never refused, and what is
 * saved next is the same again. With fields changed by the input it may be refused, and then nothing has changed; else
 * it is as good as any other.
 */
#include "frames.h"
#include "spapr_hvpipe_fault.c"
#include "spapr_hvpipe_queue.c"
#include "spapr_hvpipe_source.c"
#include "spapr_hvpipe_chardev.c"
#include "spapr_hvpipe_protocol.c"
#include "spapr_hvpipe_migration.c"
#include "spapr_hvpipe.c"

#define RAM	    0x6000
#define LIST	    0x1000 /* where send finds its list of buffers, and these */
#define BUFFERS	    0x2000
#define HMCS	    2
#define QUEUE_LIMIT 4
#define MOVES	    4  /* times that a machine is saved and loaded: it takes longer than all else */
#define EDITS	    16 /* fields changed in one migration stream */

/* An HMC's end of the link. */
struct hmc {
	SpaprHvpipeChardev *source;
	GByteArray *in;	 /* towards the device, not read by it yet */
	GByteArray *out; /* from the device, of this connection */
	size_t room;	 /* bytes that the socket takes */
	bool open;
	bool dies; /* at the next write to it */
	FEWatchFunc watch;
};

SpaprMachineState fuzz_machine;
SpaprHvpipe *fuzz_pipe;
bool fuzz_incoming;
uint64_t fuzz_random;
AddressSpace address_space_memory;

static MemoryRegion ram_region, no_region;
static uint8_t ram[RAM];
static uint32_t call_in[4], call_out[4];
static struct hmc hmcs[HMCS];
static SpaprHvpipeSource *echo;
static SpaprHvpipeSourceClass source_class, chardev_class, echo_class;
static GString *seen;
static bool whole;
static uint32_t seed;
static bool paused;	   /* nothing runs in the partition */
static bool edited;	   /* the state is not of the device's own making */
static unsigned int moves; /* so far */
static uint32_t most;	   /* messages that a source may have queued: more were loaded */

/* A migration stream, and how it is changed on its way: @edits fields are, @skip are left alone before the first one.
 */
struct load {
	const uint8_t *next;
	size_t left;
	struct input *in;
	unsigned int edits, skip;
};

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

MemoryRegion *address_space_translate(AddressSpace *as, hwaddr address, hwaddr *xlat, hwaddr *len, bool is_write,
				      int attrs)
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

bool memory_access_is_direct(MemoryRegion *region, bool is_write, int attrs)
{
	(void)is_write;
	(void)attrs;
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

static void open_link(struct hmc *hmc)
{
	hang_up(hmc);
	hmc->open = true;
	hmc->room = 1 << 20;
	g_byte_array_set_size(hmc->out, 0);
	hvpipe_link_event(hmc->source, CHR_EVENT_OPENED);
}

int qemu_chr_fe_write(CharFrontend *chr, const uint8_t *buf, int len)
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

guint qemu_chr_fe_add_watch(CharFrontend *chr, GIOCondition condition, FEWatchFunc callback, void *opaque)
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

void qemu_chr_fe_disconnect(CharFrontend *chr)
{
	hang_up(chr->opaque);
}

void qemu_chr_fe_accept_input(CharFrontend *chr)
{
	(void)chr; /* what waits is offered after each operation */
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

static void realize_source(SpaprHvpipeSource *source, SpaprHvpipeSourceClass *class, uint32_t id)
{
	Error *error = NULL;

	source->parent_obj.class = &class->parent_class.parent;
	source->parent_obj.parent_bus = &fuzz_pipe->bus;
	source->id = id;
	source->queue_limit = QUEUE_LIMIT;
	hvpipe_source_init(&source->parent_obj);
	class->parent_class.realize(&source->parent_obj, &error);
	CHECK(!error);
}

static SpaprHvpipeChardev *new_chardev(uint32_t id, struct hmc *hmc)
{
	SpaprHvpipeChardev *chardev = g_new0(SpaprHvpipeChardev, 1);

	chardev->chr.opaque = hmc;
	hvpipe_chardev_init(OBJECT(chardev));
	realize_source(&chardev->parent_obj, &chardev_class, id);
	return chardev;
}

static void start_machine(bool capable)
{
	SpaprHvpipe *s = g_new0(SpaprHvpipe, 1);
	Error *error = NULL;

	fuzz_machine.hvpipe = NULL;
	fuzz_pipe = s;
	s->capable = capable;
	s->announce_again = true;
	s->payload_limit = HVPIPE_PAYLOAD_MAX;
	hvpipe_init(OBJECT(s));
	hvpipe_realize(&s->parent_obj, &error);
	CHECK(!error && fuzz_machine.hvpipe == (capable ? s : NULL));
	hvpipe_source_class_init(&source_class.parent_class.parent, NULL);
	chardev_class = echo_class = source_class;
	hvpipe_chardev_class_init(&chardev_class.parent_class.parent, NULL);
	hvpipe_echo_class_init(&echo_class.parent_class.parent, NULL);
	for (int i = 0; i < HMCS; i++)
		hmcs[i].source = new_chardev(0x02000001 + i, hmcs + i);
	echo = g_new0(SpaprHvpipeSource, 1);
	realize_source(echo, &echo_class, 0x02000001 + HMCS);
	hvpipe_reset(s);
}

static void end_machine(void)
{
	SpaprHvpipe *s = fuzz_pipe;

	for (int i = 0; i < HMCS; i++) {
		hang_up(hmcs + i);
		hvpipe_chardev_finalize(OBJECT(hmcs[i].source));
		g_free(hmcs[i].source);
	}
	g_free(echo);
	hvpipe_finalize(OBJECT(s));
	g_free(s);
}

static void set_up(void)
{
	for (int i = 0; i < HMCS; i++) {
		memset(hmcs + i, 0, sizeof(hmcs[i]));
		hmcs[i].in = g_byte_array_new();
		hmcs[i].out = g_byte_array_new();
	}
	memset(ram, 0, sizeof(ram));
	seen = g_string_new(NULL);
	paused = edited = false;
	moves = 0;
	fuzz_random = 0;
	most = QUEUE_LIMIT;
	start_machine(true);
}

static void tear_down(void)
{
	end_machine();
	for (int i = 0; i < HMCS; i++) {
		g_byte_array_unref(hmcs[i].in);
		g_byte_array_unref(hmcs[i].out);
	}
}

static void check_source(SpaprHvpipe *s, const SpaprHvpipeSource *source, const HvpipeSession *session)
{
	uint64_t sequence = session ? session->taken : 0;
	const HvpipeEntry *entry, *last = NULL;
	uint32_t queued = 0;

	QTAILQ_FOREACH(entry, &s->queue, next)
	{
		if (entry->source != source)
			continue;
		CHECK(entry->type == HVPIPE_EVENT_MESSAGE ?
			      entry->size >= 1 && entry->size <= HVPIPE_PAYLOAD_MAX :
			      entry->type == HVPIPE_EVENT_LOST && !entry->size &&
				      (edited || !last || last->type != HVPIPE_EVENT_LOST));
		if (entry->sequence) {
			CHECK(session && entry->sequence > sequence);
			sequence = entry->sequence;
		}
		queued += entry->type == HVPIPE_EVENT_MESSAGE;
		last = entry;
	}
	CHECK(source->last == last);
	CHECK(source->queued == queued);
	CHECK(queued <= most);
	CHECK(!session || sequence <= session->queued);
}

static void check_link(SpaprHvpipe *s, SpaprHvpipeChardev *chardev)
{
	const HvpipeSession *session = &chardev->session;
	bool waits = session->state != HVPIPE_MESSAGE_NONE && session->state != HVPIPE_MESSAGE_ORPHAN;

	check_source(s, &chardev->parent_obj, session);
	CHECK(chardev->link == HVPIPE_LINK_UP || (!chardev->out_size && !chardev->watch && !chardev->state_due &&
						  !chardev->ack_due && !chardev->message_due));
	CHECK(chardev->in_size < HVPIPE_LINK_MAX_FRAME &&
	      (!chardev->out_size || chardev->out_done < chardev->out_size));
	CHECK(!waits || s->caller.source == &chardev->parent_obj);
	CHECK(session->state == HVPIPE_MESSAGE_NONE || (session->size && session->size <= HVPIPE_PAYLOAD_MAX));
	CHECK(!chardev->message_due || session->state == HVPIPE_MESSAGE_IN_FLIGHT);
	/* There is a place for all that the HMC may send. */
	CHECK(chardev->link != HVPIPE_LINK_UP || chardev->credit <= hvpipe_link_credit(chardev));
}

static void check(SpaprHvpipe *s)
{
	const HvpipeEntry *head = QTAILQ_FIRST(&s->queue), *entry;
	bool message = head && head->type == HVPIPE_EVENT_MESSAGE;
	uint32_t queued = 0;

	QTAILQ_FOREACH(entry, &s->queue, next)
	queued++;
	CHECK(s->nr_queued == queued);
	CHECK(s->epoch);
	CHECK(!s->announced || (s->enabled && head));
	CHECK(!s->enabled || s->announced || !head || s->announce_timer->pending || paused);
	CHECK(!s->fetched || (s->announced && message));
	CHECK(!s->withheld || (!s->enabled && message));
	CHECK(!s->caller.source || (s->enabled && s->caller.source->id == s->caller.source_id));
	CHECK(s->caller.source || !s->caller.source_id);
	for (int i = 0; i < HMCS; i++)
		check_link(s, hmcs[i].source);
	check_source(s, echo, NULL);
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
	hvpipe_set_inject(OBJECT(s), text, &error);
	if (error) {
		g_string_append(seen, error->text);
		error_free(error);
	}
}

static void run_partition(void)
{
	paused = false;
	hvpipe_vm_change_state(fuzz_pipe, true, 0);
}

static size_t size_of(const VMStateField *field, void *opaque)
{
	uint32_t size;

	if (!(field->flags & VMS_VBUFFER))
		return field->size;
	memcpy(&size, (char *)opaque + field->size_offset, sizeof(size));
	return size;
}

static void save_fields(const VMStateDescription *description, void *opaque, GByteArray *out)
{
	void *entry;

	CHECK(!description->needed && !description->subsections);
	CHECK(!description->pre_save || !description->pre_save(opaque));
	for (const VMStateField *field = description->fields; field->name; field++) {
		void *at = (char *)opaque + field->offset;

		if (field->field_exists) {
			CHECK(field->field_exists(opaque, description->version_id));
			continue;
		}
		if (!field->entry) {
			g_byte_array_append(out, at, size_of(field, opaque));
			continue;
		}
		QTAILQ_RAW_FOREACH(entry, at, field->entry_next)
		{
			g_byte_array_append(out, (uint8_t[]){ 1 }, 1);
			save_fields(field->entry, entry, out);
		}
		g_byte_array_append(out, (uint8_t[]){ 0 }, 1);
	}
	CHECK(!description->post_save || !description->post_save(opaque));
}

static GByteArray *save(void)
{
	GByteArray *out = g_byte_array_sized_new(1 << 16);

	save_fields(&vmstate_spapr_hvpipe, fuzz_pipe, out);
	return out;
}

/* One number or buffer of the stream, changed if it is its turn: a number a little, or to any other. */
static void load_value(struct load *load, void *to, size_t size, bool is_bool)
{
	uint64_t value = 0;
	uint8_t change;
	size_t have = MIN(size, load->left); /* less, when a size was changed: then the rest is zeros, as in QEMU */

	memset(to, 0, size);
	memcpy(to, load->next, have);
	load->next += have;
	load->left -= have;
	if (is_bool)
		*(uint8_t *)to = !!*(uint8_t *)to;
	if (!load->edits || load->skip--)
		return;
	load->edits--;
	load->skip = take_byte(load->in);
	change = take_byte(load->in);
	if (size > sizeof(value)) {
		memset(to, change, size);
		return;
	}
	memcpy(&value, to, size);
	if (is_bool)
		value ^= 1;
	else if (change < 0x80)
		value += change - 0x40;
	else
		for (size_t i = 0; i < size; i++)
			value = value << 8 | take_byte(load->in);
	memcpy(to, &value, size);
}

static int load_fields(const VMStateDescription *description, void *opaque, struct load *load);

/* Entries as long as a byte before each says that there is one more. Edits leave out some and put in others. */
static int load_entries(const VMStateField *field, void *head, struct load *load)
{
	HvpipeEntry plain = { .source_id = 0x02000001, .type = HVPIPE_EVENT_MESSAGE, .size = 1 };
	HvpipeSession session = { .source_id = 0x02000001 };
	g_autoptr(GByteArray) other = g_byte_array_new();
	bool is, was;

	save_fields(field->entry, field->entry == &vmstate_hvpipe_entry ? (void *)&plain : &session, other);
	for (;;) {
		struct load from;
		void *entry;
		int ret;

		was = load->left && *load->next;
		load_value(load, &is, sizeof(is), true);
		if (!is && !was)
			return 0;
		from = *load;
		if (!was) {
			from.next = other->data;
			from.left = other->len;
		}
		/* What is not loaded is no zero in QEMU either. */
		entry = memset(g_malloc(field->entry_size), 0xaa, field->entry_size);
		ret = load_fields(field->entry, entry, &from);
		load->edits = from.edits;
		load->skip = from.skip;
		if (was) {
			load->next = from.next;
			load->left = from.left;
		} else {
			load->next--; /* the end is still to come */
			load->left++;
		}
		if (ret || !is)
			g_free(entry);
		else
			QTAILQ_RAW_INSERT_TAIL(head, entry, field->entry_next);
		if (ret)
			return ret;
	}
}

static int load_fields(const VMStateDescription *description, void *opaque, struct load *load)
{
	int ret = description->pre_load ? description->pre_load(opaque) : 0;

	for (const VMStateField *field = description->fields; !ret && field->name; field++) {
		void *at = (char *)opaque + field->offset;

		if (field->field_exists)
			ret = field->field_exists(opaque, description->version_id) ? 0 : -1;
		else if (field->entry)
			ret = load_entries(field, at, load);
		else
			load_value(load, at, size_of(field, opaque), field->is_bool);
	}
	return ret || !description->post_load ? ret : description->post_load(opaque, description->version_id);
}

/*
 * Load what was saved on the machine that is there, changed if there are EDITS; returns whether it was accepted. If
 * not, the machine is what it was.
 */
static bool load(const GByteArray *saved, struct input *in, unsigned int edits)
{
	struct load load = { saved->data, saved->len, in, edits, edits ? take_byte(in) : 0 };
	g_autoptr(GByteArray) before = save(), after = NULL;
	bool loaded = !load_fields(&vmstate_spapr_hvpipe, fuzz_pipe, &load);

	CHECK(edits || !loaded || !load.left);
	for (int i = 0; i < HMCS; i++)
		most = MAX(most, hmcs[i].source->parent_obj.queued);
	most = MAX(most, echo->queued);
	if (!loaded) {
		after = save();
		CHECK(before->len == after->len && !memcmp(before->data, after->data, before->len));
	}
	return loaded;
}

/* Load what the device itself has saved: it is accepted, and saved as the same again. */
static void load_own(const GByteArray *saved)
{
	g_autoptr(GByteArray) again = NULL;

	CHECK(load(saved, NULL, 0));
	check(fuzz_pipe);
	again = save();
	if (!fuzz_pipe->capable) /* it is disabled, and nobody waits for an answer */
		return;
	CHECK(again->len == saved->len && !memcmp(again->data, saved->data, saved->len));
}

static void see(const GByteArray *saved)
{
	uint64_t sum = 0, word;

	for (size_t i = 0; i + sizeof(word) <= saved->len; i += sizeof(word)) {
		memcpy(&word, saved->data + i, sizeof(word));
		sum = (sum ^ word) * 0x9e3779b97f4a7c15;
		sum ^= sum >> 32;
	}
	g_string_append_printf(seen, "%u %" PRIx64 " ", saved->len, sum);
}

/* Save the machine and go on on the same one (1), on another (2), or on another behind one without a pipe (3). */
static void move(uint8_t how, struct input *in)
{
	uint8_t edits = take_byte(in) % (EDITS + 1);
	g_autoptr(GByteArray) saved = NULL;

	if (moves++ >= MOVES)
		return;
	saved = save();
	if (how >> 6 == 3) {
		end_machine();
		start_machine(false);
		load_own(saved);
		g_byte_array_unref(saved);
		saved = save();
	}
	if (how >> 6 > 1) {
		end_machine();
		start_machine(true);
	}
	paused = true;
	fuzz_incoming = how >> 6 > 1;
	if (fuzz_incoming && how & 0x20) /* the HMC is there before the partition is */
		open_link(hmcs);
	for (int i = 0; i < HMCS; i++)
		pump(hmcs + i);
	if (edits && load(saved, in, edits)) {
		edited = true;
		g_byte_array_unref(saved);
		saved = save();
	}
	load_own(saved);
	fuzz_incoming = false;
	see(saved);
	if (how & 0x10)
		run_partition();
}

/* Another reading of what PAPR leaves open */
static void be(SpaprHvpipe *s, uint8_t personality)
{
	s->announce_again = !(personality & 1);
	s->empty_receive = personality & 2 ? RTAS_OUT_PARAM_ERROR : RTAS_OUT_SUCCESS;
	s->payload_limit = personality & 4 ? HVPIPE_LIMIT_CODE : HVPIPE_LIMIT_LETTERS;
	s->announce_delay_us = personality & 8 ? 1 : 0;
	s->refuse_second_send = personality & 16;
}

static void fire(QEMUTimer *timer)
{
	if (timer->pending && !paused) {
		timer->pending = false;
		timer->callback(timer->opaque);
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
	uint8_t *raw, byte;

	/* Only who runs makes calls. */
	if (paused && operation % 16 >= 7 && operation % 16 <= 11)
		return;
	switch (operation % 16) {
	case 0:
		open_link(hmc);
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
		byte = take_byte(in);
		hello = (HvpipeLinkHmcState){ .offer = HVPIPE_LINK_OFFER, .session = byte % 4 };
		hello.taken = take_byte(in);
		hello.first = take_byte(in);
		if (byte & 0x80) {
			hello.offer.lowest = take_byte(in);
			hello.offer.highest = take_byte(in);
		}
		len = hvpipe_link_pack_hmc_state(bytes, &hello);
		if (byte & 0x40) {
			/* Bytes that a later version may have there */
			memset(bytes + len, byte, byte);
			len += byte;
			hvpipe_link_put16(bytes + 2, len - HVPIPE_LINK_HEADER_SIZE);
		}
		g_byte_array_append(hmc->in, bytes, len);
		break;
	case 4:
		sequence = hmc->source->session.queued + 1 + (int8_t)take_byte(in);
		len = take_word(in) % (HVPIPE_LINK_MAX_PAYLOAD + 1);
		memset(bytes, take_byte(in), len);
		put_frame(hmc, HVPIPE_LINK_MESSAGE, sequence, bytes, len);
		break;
	case 5:
	case 6:
		sequence = hmc->source->session.sent + (int8_t)take_byte(in);
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
		if (operation >> 6) {
			move(operation, in);
			break;
		}
		switch (operation >> 4 & 3) {
		case 0:
			run_partition();
			break;
		case 1:
			hvpipe_reset(s);
			break;
		case 2:
			fire(s->raise_timer);
			break;
		default:
			text = hvpipe_get_inject(OBJECT(s), NULL);
			g_string_append(seen, text);
		}
		break;
	case 15:
		switch (operation >> 6) {
		case 1:
			be(s, take_byte(in));
			break;
		case 2:
			fire(s->announce_timer);
			break;
		case 3:
			raw = take_bytes(in, take_byte(in) % HVPIPE_LINK_MAX_TEXT, &len);
			text = g_strndup((char *)raw, len);
			free(raw);
			len = hvpipe_link_pack_close(bytes, take_byte(in), text);
			g_byte_array_append(hmc->in, bytes, len);
			break;
		default:
			hmc->dies = true;
		}
		break;
	}
}

static GString *run(struct input in, bool in_whole)
{
	set_up();
	whole = in_whole;
	seed = in.left;
	while (in.left) {
		operate(fuzz_pipe, &in);
		for (int i = 0; i < HMCS; i++)
			pump(hmcs + i);
		check(fuzz_pipe);
	}
	for (int i = 0; i < HMCS; i++)
		g_string_append_len(seen, (char *)hmcs[i].out->data, hmcs[i].out->len);
	tear_down();
	return seen;
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	GString *one, *other;

	if (size > 1024)
		return 0;
	one = run((struct input){ data, size }, true);
	other = run((struct input){ data, size }, false);
	CHECK(g_string_equal(one, other));
	g_string_free(one, TRUE);
	g_string_free(other, TRUE);
	return 0;
}
