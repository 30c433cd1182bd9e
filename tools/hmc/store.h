/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * The state file: an SQLite database with the sessions of any number of links. `sqlite3 FILE` shows it, also while it
 * is in use:
 *
 *	link	 name		of the session: "default", or PARTITION/SOURCE of hvpipe-hmc serve
 *		 session	its ID, 16 hexadecimal digits
 *		 source		the source's ID, 0: not known yet
 *		 epoch		the last one that the hypervisor named, 16 hexadecimal digits; zeros: not known yet
 *		 taken		the last sequence taken from the hypervisor, 0: none
 *		 acknowledged	the last sequence that the partition has received from here, 0: none
 *		 queued		the last sequence given to a message of ours, 0: none
 *	message	 link, sequence, data: our messages that the partition has not acknowledged
 *	file	 link, number, id (16 hexadecimal digits), sha256: the last files stored from there
 *
 * One process at a time uses a file: it keeps a write transaction open, which lets others read. Changes are permanent
 * at hmc_store_commit(), all or none of them (write-ahead log, synchronous=FULL).
 */
#ifndef HMC_STORE_H
#define HMC_STORE_H

#include <gio/gio.h>
#include <stdbool.h>

struct hmc_store;

/**
 * hmc_store_open() - Open a state file, or make a new one of mode 0600.
 * @path: its name; NULL: memory only.
 *
 * Neither the file nor one of those that SQLite keeps beside it may be a link or belong to somebody else, and others
 * may not be able to write to its directory.
 *
 * Return: the store, or NULL with @error: G_IO_ERROR_BUSY when another process uses the file, G_IO_ERROR_INVALID_DATA
 * when it is damaged or no state file.
 */
struct hmc_store *hmc_store_open(const char *path, GError **error);
/* All sessions are closed. Changes since the last commit are lost. */
void hmc_store_close(struct hmc_store *store);

/**
 * hmc_store_commit() - Have all changes of all sessions on stable storage. Costs nothing when they are.
 *
 * Return: false with @error when that fails. The file is as after the last commit then; memory is ahead of it, so no
 * session can go on.
 */
bool hmc_store_commit(struct hmc_store *store, GError **error);

#endif
