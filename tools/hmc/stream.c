// SPDX-License-Identifier: GPL-2.0-or-later
/* The connection of a link: bytes to frames and back. */
#include <errno.h>
#include <inttypes.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#include "link-private.h"

/* A buffer that grew beyond this is freed when it is empty. */
#define OUT_KEEP 4096

/* Read in one call. Links take turns with it: it is empty between two callbacks. */
static uint8_t input[HVPIPE_LINK_MAX_FRAME + 64 * 1024];

static void on_ready(void *user, uint32_t events);
static void flush(void *user);

void hmc_stream_init(struct hmc_link *link)
{
	link->stream.fd = -1;
	link->stream.out = g_byte_array_new();
}

void hmc_stream_free(struct hmc_link *link)
{
	hmc_stream_close(link);
	g_byte_array_unref(link->stream.out);
}

static void empty_out(struct stream *stream)
{
	if (stream->out->len > OUT_KEEP) {
		g_byte_array_unref(stream->out);
		stream->out = g_byte_array_new();
	}
	g_byte_array_set_size(stream->out, 0);
	stream->out_done = 0;
}

void hmc_stream_close(struct hmc_link *link)
{
	struct stream *stream = &link->stream;

	hmc_watch_stop(&stream->watch);
	hmc_task_cancel(&stream->flush);
	hmc_timer_stop(&stream->stall);
	if (stream->fd >= 0)
		close(stream->fd);
	stream->fd = -1;
	g_clear_pointer(&stream->part, g_free);
	stream->part_len = 0;
	empty_out(stream);
	stream->shut = stream->corrupted = stream->close_due = stream->stalled = false;
}

void hmc_stream_open(struct hmc_link *link, int fd)
{
	link->stream.fd = fd;
	hmc_stream_read_on(link);
	hmc_session_begin(link);
}

void hmc_stream_stop_reading(struct hmc_link *link)
{
	hmc_watch_stop(&link->stream.watch);
}

void hmc_stream_read_on(struct hmc_link *link)
{
	if (link->stream.fd >= 0 && !link->stream.watch.loop)
		hmc_watch_start(&link->stream.watch, link->loop, link->stream.fd, EPOLLIN, on_ready, link);
}

size_t hmc_stream_waiting(const struct hmc_link *link)
{
	return link->stream.out->len - link->stream.out_done;
}

/*
 * Output
 */

static void on_stall_end(void *user)
{
	hmc_stream_end_stall(user);
}

/* A fault strikes in place of the frame. What it does to the link besides is done here; returns the bytes to write. */
static size_t make_fault(struct hmc_link *link, uint8_t *frame, size_t size)
{
	struct hmc_fault fault;
	HvpipeLinkHmcState state = hmc_session_hello(link);
	struct stream *stream = &link->stream;
	HvpipeLinkHeader header;

	hvpipe_link_unpack_header(frame, &header);
	if (!hmc_faults_strike(&link->faults, header.type, &fault))
		return size;
	hmc_link_notice(link, HMC_NOTICE_DETAIL, "%s: fault %s at %s %" PRIu64, hmc_link_address(link),
			hmc_fault_name(fault.kind), hvpipe_link_type_name(header.type), header.sequence);
	if (fault.kind == HMC_FAULT_STALL) {
		stream->stalled = true;
		hmc_stream_stop_reading(link);
		if (fault.ms)
			hmc_timer_start(&stream->stall, link->loop, fault.ms, on_stall_end, link);
		return size;
	}
	stream->corrupted = true;
	stream->close_due = fault.kind == HMC_FAULT_CLOSE || fault.kind == HMC_FAULT_CUT;
	return hmc_fault_corrupt(fault.kind, frame, size, &state, hmc_state_queued(link->state));
}

void hmc_stream_put(struct hmc_link *link, uint8_t *frame, size_t size)
{
	if (link->stream.corrupted)
		return;
	if (link->faults)
		size = make_fault(link, frame, size);
	g_byte_array_append(link->stream.out, frame, size);
}

void hmc_stream_end_stall(struct hmc_link *link)
{
	hmc_timer_stop(&link->stream.stall);
	if (!link->stream.stalled)
		return;
	link->stream.stalled = false;
	hmc_stream_read_on(link);
	hmc_stream_flush_soon(link);
}

void hmc_stream_flush_soon(struct hmc_link *link)
{
	/* Without a connection too: the turn's commit is wanted. */
	hmc_task_queue(&link->stream.flush, link->loop, flush, link);
}

static void flush(void *user)
{
	struct hmc_link *link = user;
	struct stream *stream = &link->stream;
	bool written = true;

	if (stream->fd < 0 || stream->stalled)
		return;
	for (;;) {
		ssize_t n;

		if (written && !stream->stalled)
			hmc_session_fill(link);
		if (stream->stalled)
			return;
		if (!stream->out->len)
			break;
		n = send(stream->fd, stream->out->data + stream->out_done, stream->out->len - stream->out_done,
			 MSG_NOSIGNAL);
		if (n < 0 && errno == EAGAIN) {
			if (stream->watch.loop)
				hmc_watch_set(&stream->watch, EPOLLIN | EPOLLOUT);
			return;
		}
		if (n < 0) {
			/* Whatever the other side said before it went is still to be read; the input finds the end. */
			empty_out(stream);
			return;
		}
		stream->out_done += n;
		written = stream->out_done == stream->out->len;
		if (written)
			empty_out(stream);
	}
	if (stream->watch.loop)
		hmc_watch_set(&stream->watch, EPOLLIN);
	if (stream->close_due)
		hmc_dial_lost(link, "closed by a fault");
}

/*
 * Input
 */

ssize_t hmc_stream_take(struct hmc_link *link, const uint8_t *data, size_t len)
{
	size_t used = 0;

	while (len - used >= HVPIPE_LINK_HEADER_SIZE) {
		const uint8_t *frame = data + used;
		HvpipeLinkHeader header;
		const char *wrong;

		hvpipe_link_unpack_header(frame, &header);
		wrong = hvpipe_link_check_header(&header, HVPIPE_LINK_FROM_HV);
		if (wrong) {
			hmc_session_malformed(link,
					      "%s (version %u, type %u %s, length %u, reserved 0x%x, sequence %" PRIu64
					      ")",
					      wrong, header.version, header.type, hvpipe_link_type_name(header.type),
					      header.length, header.reserved, header.sequence);
			return -1;
		}
		if (len - used < HVPIPE_LINK_HEADER_SIZE + (size_t)header.length)
			break;
		if (!hmc_session_take(link, &header, frame + HVPIPE_LINK_HEADER_SIZE))
			return -1;
		used += HVPIPE_LINK_HEADER_SIZE + header.length;
	}
	return used;
}

static void read_input(struct hmc_link *link)
{
	struct stream *stream = &link->stream;
	size_t len = stream->part_len;
	char why[64];
	ssize_t n;

	n = recv(stream->fd, input + len, sizeof(input) - HVPIPE_LINK_MAX_FRAME, 0);
	if (n < 0 && (errno == EAGAIN || errno == EINTR))
		return;
	if (n < 0) {
		hmc_dial_lost(link, g_strerror(errno));
		return;
	}
	if (n == 0) {
		g_snprintf(why, sizeof(why),
			   len ? "closed by the other side %zu bytes into a frame" : "closed by the other side", len);
		hmc_dial_lost(link, why);
		return;
	}
	if (link->phase == PHASE_FINISHING)
		return;
	if (len)
		memcpy(input, stream->part, len);
	len += n;
	g_clear_pointer(&stream->part, g_free);
	stream->part_len = 0;
	n = hmc_stream_take(link, input, len);
	if (n >= 0 && (size_t)n < len) {
		stream->part_len = len - n;
		stream->part = g_memdup2(input + n, stream->part_len);
	}
}

static void on_ready(void *user, uint32_t events)
{
	struct hmc_link *link = user;

	if (events & EPOLLOUT)
		hmc_stream_flush_soon(link);
	if (events & (EPOLLIN | EPOLLHUP | EPOLLERR))
		read_input(link);
}
