/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * File messages: files in messages of at most 4088 bytes.
 *
 * Each message is one line of text and a chunk of the file:
 *
 *	FILE SIZE OFFSET NAME\n
 *	bytes of the file from OFFSET on
 *
 * SIZE is the size of the whole file and OFFSET the place of this chunk, both in bytes, decimal, without leading zeros.
 * NAME is the rest of the line: 1 to 249 bytes, no '/', no control characters, no dot at the begin. Chunks come in
 * order and without gaps, and none is empty; the one that ends at SIZE is the last. A file of SIZE 0 is one message
 * without bytes.
 *
 * Functions that fail put one line without a newline into `error`; it names the thing and the value.
 */
#ifndef FILE_MESSAGE_H
#define FILE_MESSAGE_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/types.h>

#define FILE_MESSAGE_MAX      4088 /* bytes of a message, its first line included */
#define FILE_MESSAGE_DEFAULT  4048 /* the most that every kernel takes */
#define FILE_MESSAGE_NAME_MAX 249  /* bytes of NAME: the partial file's name, ".NAME.part", must fit in NAME_MAX */

struct file_message_error {
	char text[1024];
};

/* A parsed message. */
struct file_message {
	uint64_t size;
	uint64_t offset;
	char name[FILE_MESSAGE_NAME_MAX + 1];
	const void *data; /* points into the message that was parsed */
	size_t len;
};

/**
 * file_message_parse() - Parse one message and check it as far as that is possible without the others.
 *
 * Return: 0, or -1 with errno EBADMSG and @error filled in.
 */
int file_message_parse(struct file_message *msg, const void *message, size_t len, struct file_message_error *error);

/**
 * file_message_format() - Write a message's first line, the newline included and without a terminating NUL.
 * @line: room for FILE_MESSAGE_MAX bytes. The chunk goes behind the line.
 *
 * Return: bytes of the line, or -1 with errno EINVAL (the name cannot be sent) and @error filled in.
 */
ssize_t file_message_format(char *line, uint64_t size, uint64_t offset, const char *name,
			    struct file_message_error *error);

/* A file being sent. */
struct file_sender {
	int fd;
	size_t message_size;
	uint64_t size;
	uint64_t offset; /* of the next chunk */
	bool done;
	char name[FILE_MESSAGE_NAME_MAX + 1];
};

/**
 * file_sender_open() - Begin to send the regular file @path, under the last component of its name.
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

void file_sender_close(struct file_sender *sender);

/*
 * Receives files, one after the other, into a directory. A file grows as ".NAME.part". When it is complete, it is
 * renamed to NAME and replaces an earlier file of that name, so nobody sees half a file under its name. An incomplete
 * file stays as ".NAME.part", even after the process has ended, and its next chunk continues it.
 */
struct file_receiver {
	int dir;
	bool sync;
	int fd; /* the incomplete file, -1 between files */
	uint64_t size;
	uint64_t offset;		      /* of the chunk that must come next */
	uint64_t last;			      /* offset of the chunk taken last */
	char name[FILE_MESSAGE_NAME_MAX + 1]; /* of the incomplete file, or of the last complete one */
};

enum file_receiver_result {
	FILE_RECEIVER_ERROR = -1,
	FILE_RECEIVER_MORE = 0,	    /* taken, more chunks of this file must follow */
	FILE_RECEIVER_COMPLETE = 1, /* taken, and the file named in receiver->name is complete */
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
 * A message that begins another file is taken, and the incomplete file before it is removed. A message may come again:
 * directly after it was taken, as its sender was left in doubt, or as the first message of a process, as the one before
 * could not acknowledge it.
 *
 * Return: see the enum. @error is empty, says why the message was not taken, or, when it was, which incomplete file was
 * removed. FILE_RECEIVER_ERROR comes with one of these:
 *	EBADMSG	the message is malformed, not the next one, or no file can have its name here, for example because a
 *		directory has it. The incomplete file is removed, and the receiver waits for the beginning of another.
 *	EBUSY	another process receives a file of this name in this directory.
 *	others	it could not be stored. The same message may be offered again.
 */
enum file_receiver_result file_receiver_take(struct file_receiver *receiver, const void *message, size_t len,
					     struct file_message_error *error);

/* An incomplete file stays as ".NAME.part". */
void file_receiver_close(struct file_receiver *receiver);

#endif
