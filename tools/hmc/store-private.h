/* SPDX-License-Identifier: GPL-2.0-or-later */
/* What store.c and state.c share. */
#ifndef HMC_STORE_PRIVATE_H
#define HMC_STORE_PRIVATE_H

#include <sqlite3.h>

#include "state.h"
#include "store.h"

/* How far a session is. */
struct progress {
	uint32_t source;
	uint64_t epoch;
	uint64_t taken;
	uint64_t acknowledged;
	uint64_t queued;
	uint64_t files; /* stored */
};

struct hmc_state {
	struct hmc_store *store;
	int64_t row; /* in the table of links */
	uint64_t session;
	struct progress progress;
	struct progress written; /* as the open transaction has it */
	GQueue pending;		 /* of GBytes: the messages acknowledged + 1 .. queued */
	GQueue files;		 /* of struct hmc_stored_file: the last of them */
	bool changed;		 /* it is in the store's list of what to write */
};

enum statement {
	BEGIN,
	COMMIT,
	INSERT_LINK,
	UPDATE_LINK,
	SELECT_LINK,
	INSERT_MESSAGE,
	DELETE_MESSAGES,
	SELECT_MESSAGES,
	INSERT_FILE,
	DELETE_FILES,
	SELECT_FILES,
	STATEMENTS
};

struct hmc_store {
	char *path; /* NULL: memory only, and there is no database */
	sqlite3 *db;
	sqlite3_stmt *statements[STATEMENTS];
	GPtrArray *changed; /* states to write at the next commit */
	bool dirty;	    /* the open transaction has changes that are not in that list */
	bool broken;	    /* a commit failed */
};

/* The session's rows as they are in the file, into a state that is empty. */
bool hmc_store_load(struct hmc_state *state, const char *name, GError **error);

#endif
