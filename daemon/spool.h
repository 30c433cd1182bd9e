/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * hvpiped: the messages of one source that wait for a receiver, in an SQLite database on disk.
 *
 * What spool_append() took survives a kill of the daemon and a loss of power.
 */
#ifndef SPOOL_H
#define SPOOL_H

#include <glib.h>
#include <stdbool.h>
#include <stdint.h>
#include <sys/types.h>

/* What a message counts besides its own bytes, so that many small ones are bounded too. */
#define SPOOL_OVERHEAD 64

#define SPOOL_ERROR spool_error_quark()
GQuark spool_error_quark(void);

enum spool_error {
	SPOOL_ERROR_FULL, /* the spool has as many bytes as it may have */
	SPOOL_ERROR_DISK, /* the disk is full, read-only or broken */
};

struct spool;

/**
 * spool_new() - The spool of one source.
 * @directory: where its file is.
 * @name: the file's, without its end.
 * @max_bytes: the most that it holds.
 *
 * The file is opened when it is needed, and after an error opened again.
 */
struct spool *spool_new(const char *directory, const char *name, uint64_t max_bytes);
void spool_free(struct spool *spool);

/* Open the file now. False with @error if that fails. */
bool spool_open(struct spool *spool, GError **error);

/* Append a message; no bytes stand for a loss of the connection. */
bool spool_append(struct spool *spool, const void *data, size_t len, GError **error);

/* What the next message that is appended will be called, which is more than 0. -1 with @error if that is not known. */
int64_t spool_next_id(struct spool *spool, GError **error);

/* True if a message of @len bytes fits. */
bool spool_has_room(const struct spool *spool, size_t len);

/**
 * spool_first() - The oldest message.
 * @id: where to store what spool_remove() needs.
 * @data: room for HVPIPE_MAX_RECEIVE bytes.
 *
 * Return: its bytes, or -1 if there is none or with @error.
 */
ssize_t spool_first(struct spool *spool, int64_t *id, void *data, GError **error);

bool spool_remove(struct spool *spool, int64_t id, GError **error);

uint64_t spool_messages(const struct spool *spool);
uint64_t spool_bytes(const struct spool *spool);
uint64_t spool_max_bytes(const struct spool *spool);

#endif
