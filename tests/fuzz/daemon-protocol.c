// SPDX-License-Identifier: GPL-2.0-or-later
/*
 * The packets between libhvpipe and hvpiped. What one side accepts, the other side never sends; what is accepted has
 * data within the packet; and libhvpipe, whatever a daemon answers, returns what it promises and overruns no buffer.
 */
#include <errno.h>
#include <poll.h>
#include <sys/socket.h>

#include "fuzz.h"

static ssize_t daemon_recv(int fd, void *buffer, size_t size, int flags);
static ssize_t daemon_sendmsg(int fd, const struct msghdr *packet, int flags);

#define recv	daemon_recv
#define sendmsg daemon_sendmsg
#include "connect.c"
#undef recv
#undef sendmsg
#include "protocol.c"

static struct input in;

/* A packet of the input; half of them get a header that may be right. */
static ssize_t daemon_recv(int fd, void *buffer, size_t size, int flags)
{
	uint8_t what = take_byte(&in);
	size_t len = take_word(&in) % 5000;
	struct hvpipe_packet_header header = hvpipe_packet_header(HVPIPE_PACKET_RESULT + what % 5);

	CHECK(size == sizeof(struct hvpipe_packet));
	if (!in.left)
		return 0;
	if (what < 16) {
		errno = what & 1 ? EINTR : what & 2 ? EAGAIN : ECONNRESET;
		return -1;
	}
	memset(buffer, what, len < size ? len : size);
	if (what >= 64 && len >= sizeof(header)) {
		header.number = take_byte(&in) & 3;
		header.error = take_byte(&in) & 1 ? EPIPE : 0;
		if (what & 1)
			header.source = 1;
		if (what & 2)
			header.right = 1 << (what & 3);
		memcpy(buffer, &header, sizeof(header));
	}
	return len;
}

static ssize_t daemon_sendmsg(int fd, const struct msghdr *packet, int flags)
{
	struct hvpipe_packet sent;
	size_t len = 0;

	for (size_t i = 0; i < packet->msg_iovlen; i++) {
		CHECK(len + packet->msg_iov[i].iov_len <= sizeof(sent));
		memcpy((uint8_t *)&sent + len, packet->msg_iov[i].iov_base, packet->msg_iov[i].iov_len);
		len += packet->msg_iov[i].iov_len;
	}
	/* The daemon takes all that the library sends. */
	CHECK(!hvpipe_packet_check(&sent, len, 1) && hvpipe_packet_check(&sent, len, 0));
	if (take_byte(&in) < 8) {
		errno = EPIPE;
		return -1;
	}
	return len;
}

int hvpipe_wait_fd(int fd, short events, int timeout_ms)
{
	return take_byte(&in) & 7 ? events : 0;
}

void hvpipe_close(struct hvpipe *pipe)
{
}

static void check_packet(const uint8_t *data, size_t size)
{
	struct hvpipe_packet packet;
	size_t len = size < sizeof(packet) ? size : sizeof(packet);

	memset(&packet, 0, sizeof(packet));
	memcpy(&packet, data, len);
	if (!hvpipe_packet_check(&packet, len, 0))
		CHECK(hvpipe_packet_check(&packet, len, 1));
	if (!hvpipe_packet_check(&packet, len, 1))
		CHECK(hvpipe_packet_check(&packet, len, 0) && len >= HVPIPE_PACKET_HEADER &&
		      len - HVPIPE_PACKET_HEADER <= HVPIPE_MAX_PAYLOAD);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	struct hvpipe pipe = { .connected = HVPIPE_RECEIVE | HVPIPE_SEND, .fd = 100, .send_fd = 101 };
	struct hvpipe observer = { .connected = HVPIPE_OBSERVE, .fd = 100, .send_fd = -1 };
	static uint8_t message[HVPIPE_MAX_PAYLOAD];

	check_packet(data, size);
	in = (struct input){ .next = data, .left = size };
	while (in.left) {
		struct hvpipe_observed observed;
		size_t room = take_word(&in) % (HVPIPE_MAX_RECEIVE + 1);
		uint8_t *buffer = malloc(room);
		ssize_t n;

		switch (take_byte(&in) % 4) {
		case 0:
			pipe.pending = 0;
			if (!hvpipe_connected_fill(&pipe, room & 1) && pipe.pending) {
				CHECK(pipe.pending <= HVPIPE_MAX_RECEIVE);
				hvpipe_connected_taken(&pipe);
			}
			break;
		case 1:
			n = hvpipe_connected_send(&pipe, message, 1 + room % HVPIPE_MAX_PAYLOAD);
			CHECK(n == -1 || n == (ssize_t)(1 + room % HVPIPE_MAX_PAYLOAD));
			break;
		case 2:
			n = hvpipe_observe(&observer, &observed, buffer, room, 0);
			CHECK(n >= -1 && n <= HVPIPE_MAX_RECEIVE);
			break;
		default:
			hvpipe_connected_wait_enabled(&pipe, 0);
		}
		free(buffer);
	}
	return 0;
}
