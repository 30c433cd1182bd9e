/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * The packets between libhvpipe and hvpiped, one each way in a packet of a SOCK_SEQPACKET socket. docs/daemon.md
 * describes them; library and daemon read and write them by these functions only.
 */
#ifndef HVPIPE_PROTOCOL_H
#define HVPIPE_PROTOCOL_H

#include <stddef.h>
#include <stdint.h>

#define HVPIPE_PROTOCOL_VERSION 1

/* Bytes of data in a packet. */
#define HVPIPE_PACKET_DATA 4096

enum hvpipe_packet_type {
	/* from a client */
	HVPIPE_PACKET_OPEN = 1, /* @right and @source: what the connection is for */
	HVPIPE_PACKET_SEND,	/* @number, chosen by the client, and the message */
	HVPIPE_PACKET_TAKEN,	/* @number of the message that was received */
	HVPIPE_PACKET_STATE,	/* @number: is the pipe enabled? */
	HVPIPE_PACKET_STATUS,	/* all counters, as lines */
	/* from the daemon */
	HVPIPE_PACKET_RESULT,	/* @number, @error, and text for people if it is not 0 */
	HVPIPE_PACKET_MESSAGE,	/* @number, @source and the message */
	HVPIPE_PACKET_LOST,	/* @source: the connection to it was lost */
	HVPIPE_PACKET_OBSERVED, /* @source, @right, @error, @number of those missed before, and the message */
	HVPIPE_PACKET_LINE,	/* a line of the status */
};

/* Before the data in every packet, in the machine's byte order. */
struct hvpipe_packet_header {
	uint8_t version;
	uint8_t type;
	uint8_t right;
	uint8_t reserved;
	uint32_t number;
	uint32_t source;
	uint32_t error;
};

struct hvpipe_packet {
	struct hvpipe_packet_header header;
	unsigned char data[HVPIPE_PACKET_DATA];
};

#define HVPIPE_PACKET_HEADER sizeof(struct hvpipe_packet_header)

/* A header with the version; the rest is the caller's. */
struct hvpipe_packet_header hvpipe_packet_header(enum hvpipe_packet_type type);

/**
 * hvpipe_packet_check() - Check a packet of @len bytes that the other side sent.
 * @from_client: who sent it.
 *
 * Return: NULL if it is well formed; its data has len - HVPIPE_PACKET_HEADER bytes then. Else what is wrong with it.
 */
const char *hvpipe_packet_check(const struct hvpipe_packet *packet, size_t len, int from_client);

#endif
