/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * What an HMC must not forget about its session with one source: the session's ID, how far the messages went each way,
 * and its own messages that the partition has not acknowledged. In memory only, or kept in a file that survives the
 * process, kill -9 included, and, after hmc_state_sync(), the machine.
 *
 * The file is a header and records, each with a CRC-32. All integers are big-endian.
 *
 *	header	 0  16 bytes	"hvpipe-hmc 1\n" and zeros
 *		16  be64	session
 *		24  be64	base: bytes of the file when it was made, all of them on stable storage before it got
 *				its name
 *		32  be32	zero
 *		36  be32	CRC-32 of the bytes 0..35
 *	record	 0  4 bytes	"HMCr"
 *		 4  be32	CRC-32 of the bytes from 8 to the record's end
 *		 8  be16	length of the message in this record, 0: none
 *		10  be16	zero
 *		12  be32	source ID, 0: not known yet
 *		16  be64	taken: the last sequence taken from the hypervisor, 0: none
 *		24  be64	acknowledged: the last sequence the partition has received from here, 0: none
 *		32  be64	queued: the last sequence given to a message of ours, to the one in this record if it
 *				has one
 *		40		the message
 *
 * Records are only appended. The last one says how far all is; the messages behind its `acknowledged` are pending. The
 * end of the file that is no whole record is an append which never finished, and so promised nothing: it is cut off.
 * Damage anywhere else is an error. From time to time the file is written anew, beside the old one, and renamed.
 */
#ifndef HMC_STATE_H
#define HMC_STATE_H

#include <gio/gio.h>
#include <stdbool.h>
#include <stdint.h>

struct hmc_state;

/**
 * hmc_state_open() - Load a state, or begin a new one with a random session.
 * @path: the file, made if there is none and locked until hmc_state_close(); NULL: memory only.
 *
 * Return: the state, or NULL with @error: G_IO_ERROR_BUSY when another process has the file, G_IO_ERROR_INVALID_DATA
 * when it is damaged or no state file.
 */
struct hmc_state *hmc_state_open(const char *path, GError **error);
void hmc_state_close(struct hmc_state *state);

const char *hmc_state_path(const struct hmc_state *state); /* NULL: memory only */
uint64_t hmc_state_cut(const struct hmc_state *state);	   /* bytes of an unfinished append, cut off by the load */
uint64_t hmc_state_session(const struct hmc_state *state);
uint32_t hmc_state_source(const struct hmc_state *state);
uint64_t hmc_state_taken(const struct hmc_state *state);
uint64_t hmc_state_acknowledged(const struct hmc_state *state);
uint64_t hmc_state_queued(const struct hmc_state *state);

/* The pending messages (GBytes), the oldest, of sequence acknowledged + 1, at the head. */
const GQueue *hmc_state_pending(const struct hmc_state *state);

/*
 * The changes. Each is one record, so it is there as a whole or not at all. On failure nothing has changed, neither in
 * memory nor in the file.
 */

/* The session is with this source. */
bool hmc_state_bind(struct hmc_state *state, uint32_t source, GError **error);
/* Give the next sequence to a message of 1 to 4088 bytes. */
bool hmc_state_queue(struct hmc_state *state, GBytes *message, GError **error);
/* The next message from the hypervisor is taken, and answered with @reply (NULL: not at all). */
bool hmc_state_take(struct hmc_state *state, GBytes *reply, GError **error);
/* The partition has received all up to @sequence, which is between acknowledged and queued. */
bool hmc_state_acknowledge(struct hmc_state *state, uint64_t sequence, GError **error);

/* Have all changes on stable storage. Costs nothing when they are. */
bool hmc_state_sync(struct hmc_state *state, GError **error);

#endif
