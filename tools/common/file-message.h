/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * File messages: files in messages of at most 4088 bytes, and the receiver's answer. docs/file-messages.md has the
 * format byte by byte.
 *
 * Functions that fail put one line without a newline into `error`; it names the thing and the value.
 */
#ifndef FILE_MESSAGE_H
#define FILE_MESSAGE_H

#include <sha2.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/types.h>

#define FILE_MESSAGE_MAX      4088 /* bytes of a message, its first line included */
#define FILE_MESSAGE_DEFAULT  4048 /* the most that every kernel takes */
#define FILE_MESSAGE_NAME_MAX 255  /* bytes of NAME, as of any file's name */
#define FILE_ANSWER_MAX	      512  /* bytes of an answer */
#define FILE_ANSWER_TEXT_MAX  400  /* bytes of a refusal's text */

/* How long a sender waits for the answer by default, after the other side has taken the last message. */
#define FILE_ANSWER_MS 30000

struct file_message_error {
	char text[1024];
};

/* A parsed message with a part of a file. */
struct file_message {
	bool answerable; /* @id is known, also after an error */
	uint64_t id;
	uint64_t size;
	uint64_t offset;
	char name[FILE_MESSAGE_NAME_MAX + 1];
	const void *data; /* points into the message that was parsed */
	size_t len;
};

/**
 * file_message_parse() - Parse one message and check it as far as that is possible without the others.
 *
 * Return: 0, or -1 with @error filled in and errno EBADMSG, or EILSEQ when only the name is not allowed.
 */
int file_message_parse(struct file_message *msg, const void *message, size_t len, struct file_message_error *error);

/**
 * file_message_format() - Write a message's first line, the newline included and without a terminating NUL.
 * @line: room for FILE_MESSAGE_MAX bytes. The chunk goes behind the line.
 *
 * Return: bytes of the line, or -1 with errno EILSEQ (the name cannot be sent) and @error filled in.
 */
ssize_t file_message_format(char *line, uint64_t id, uint64_t size, uint64_t offset, const char *name,
			    struct file_message_error *error);

/* Why a file is refused. */
enum file_refusal {
	FILE_REFUSAL_MALFORMED, /* the message is none, or does not belong to the ones before it */
	FILE_REFUSAL_NAME,	/* no file can have this name there */
	FILE_REFUSAL_GAP,	/* a part before this one has not come: send the file again, from its begin */
	FILE_REFUSAL_STORAGE,	/* it cannot be stored */
	FILE_REFUSAL_UNWANTED,	/* nobody stores files there */
	FILE_REFUSALS
};

/* A receiver's answer. */
struct file_answer {
	uint64_t id;
	bool stored;
	char sha256[SHA256_DIGEST_STRING_LENGTH]; /* of what was stored, hexadecimal */
	enum file_refusal refusal;
	char text[FILE_ANSWER_TEXT_MAX + 1];
};

/* Return: false if the message is no answer. */
bool file_answer_parse(struct file_answer *answer, const void *message, size_t len);

/* Write an answer, its text cut if it is too long. Return: its bytes. */
size_t file_answer_format(const struct file_answer *answer, char message[static FILE_ANSWER_MAX]);

/**
 * file_message_refuse() - Make the answer of a program that stores no files.
 * @why: says so.
 * @answer_len: bytes of @answer, 0 for a message in the middle of a file, which needs none.
 *
 * Return: false if @message is no file message.
 */
bool file_message_refuse(const void *message, size_t len, const char *why, char answer[static FILE_ANSWER_MAX],
			 size_t *answer_len);

/* A file being sent. */
struct file_sender {
	int fd;
	size_t message_size;
	uint64_t id;
	uint64_t size;
	uint64_t offset; /* of the next chunk */
	bool done;
	unsigned int tries;
	SHA2_CTX hash;
	char sha256[SHA256_DIGEST_STRING_LENGTH]; /* when it is done */
	char name[FILE_MESSAGE_NAME_MAX + 1];
};

/**
 * file_sender_open() - Begin to send the regular file @path, under the last component of its name and a random ID.
 * @message_size: bytes of a message, its first line included, FILE_MESSAGE_MAX at most.
 *
 * Return: 0, or -1 with errno and @error filled in; then there is nothing to close.
 */
int file_sender_open(struct file_sender *sender, const char *path, size_t message_size,
		     struct file_message_error *error);

/**
 * file_sender_next() - Make the next message.
 * @message: room for FILE_MESSAGE_MAX bytes.
 *
 * Return: bytes of the message; 0 after the last one; -1 with errno and @error filled in, EIO when the file became
 * shorter since it was opened.
 */
ssize_t file_sender_next(struct file_sender *sender, void *message, struct file_message_error *error);

enum file_outcome {
	FILE_OUTCOME_NONE,    /* @message is no answer */
	FILE_OUTCOME_OTHER,   /* an answer, but not to this file, or to an earlier try of it */
	FILE_OUTCOME_STORED,  /* with the contents that were sent */
	FILE_OUTCOME_REFUSED, /* @error says why */
	FILE_OUTCOME_AGAIN,   /* a part was lost: file_sender_next() begins anew, with the same ID */
};

/**
 * file_sender_take() - Take a message that may be the receiver's answer.
 *
 * A file of which a part was lost is sent FILE_SENDER_TRIES times, then it counts as refused.
 */
#define FILE_SENDER_TRIES 3
enum file_outcome file_sender_take(struct file_sender *sender, const void *message, size_t len,
				   struct file_message_error *error);

void file_sender_close(struct file_sender *sender);

#define FILE_RECEIVER_FILES 8  /* incomplete files that grow at the same time */
#define FILE_RECEIVER_KNOWN 64 /* stored files that are known when they come again */

/*
 * Receives files into a directory. A file grows as ".ID.part". When it is complete, it is renamed to NAME and replaces
 * an earlier file of that name, so nobody sees half a file under its name. An incomplete file stays as ".ID.part", even
 * after the process has ended, and its next chunk continues it.
 */
struct file_receiver {
	int dir;
	bool sync;
	uint64_t nr_messages;
	struct file_receiver_part {
		int fd; /* -1: not in use */
		uint64_t id;
		uint64_t size;
		uint64_t offset; /* of the chunk that must come next */
		uint64_t last;	 /* offset of the chunk taken last */
		uint64_t used;	 /* nr_messages at that time */
		SHA2_CTX hash;	 /* of the bytes before `offset` */
		char name[FILE_MESSAGE_NAME_MAX + 1];
	} parts[FILE_RECEIVER_FILES];
	struct {
		uint64_t id;
		char sha256[SHA256_DIGEST_STRING_LENGTH];
	} stored[FILE_RECEIVER_KNOWN];
	uint64_t nr_stored;
	struct file_receiver_refused { /* files of which more may come */
		bool used;
		uint64_t id;
	} refused[FILE_RECEIVER_FILES];
	uint64_t nr_refused;

	/* Of the message taken last, if it was a file message: */
	uint64_t id;
	uint64_t size;
	char name[FILE_MESSAGE_NAME_MAX + 1]; /* empty if it is not allowed */
	char sha256[SHA256_DIGEST_STRING_LENGTH];
	char answer[FILE_ANSWER_MAX]; /* to be sent to the other side ... */
	size_t answer_len;	      /* ... if it has a length */
};

/* A file that was stored by an earlier process: its messages may come again, and change nothing. */
void file_receiver_remember(struct file_receiver *receiver, uint64_t id, const char *sha256);

enum file_receiver_result {
	FILE_RECEIVER_NONE,	/* no file message: @error says why */
	FILE_RECEIVER_MORE,	/* taken, more must follow */
	FILE_RECEIVER_AGAIN,	/* of a file that was stored or refused before: nothing has changed */
	FILE_RECEIVER_COMPLETE, /* taken, and the file is complete */
	FILE_RECEIVER_REFUSED,	/* the file is refused: @error says why */
};

/**
 * file_receiver_open() - Begin to receive files into the directory @path.
 * @sync: file_receiver_take() returns when the chunk is on stable storage.
 *
 * Return: 0, or -1 with errno and @error filled in.
 */
int file_receiver_open(struct file_receiver *receiver, const char *path, bool sync, struct file_message_error *error);

/**
 * file_receiver_take() - Take one message.
 *
 * Files may come mixed. Beyond FILE_RECEIVER_FILES of them, the one that has waited longest is removed. A message may
 * come again, as its sender was left in doubt, and so may a whole file: neither makes a second file.
 *
 * Return: see the enum. When a message was taken, @error is empty or says which incomplete file was removed.
 */
enum file_receiver_result file_receiver_take(struct file_receiver *receiver, const void *message, size_t len,
					     struct file_message_error *error);

/* Incomplete files stay as ".ID.part". */
void file_receiver_close(struct file_receiver *receiver);

#endif
