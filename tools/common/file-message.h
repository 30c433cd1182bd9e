/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * File messages: files in messages of at most 4088 bytes.
 *
 * Each message is one line of text and a chunk of the file:
 *
 *	FILE SIZE OFFSET NAME\n
 *	bytes of the file from OFFSET on
 *
 * SIZE is that of the whole file, OFFSET that of this chunk, both in bytes and decimal without leading zeros. NAME is the
 * rest of the line: 1 to 249 bytes, no '/', no control characters, not "." or "..". Chunks come in order, without gaps,
 * none of them empty; the one that ends at SIZE is the last. A file of SIZE 0 is one message without bytes.
 *
 * Functions that fail leave a line without a newline in `error`, which names the thing and the value.
 */
#ifndef FILE_MESSAGE_H
#define FILE_MESSAGE_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/types.h>

#define FILE_MESSAGE_MAX 4088		/* bytes of a message, its first line included */
#define FILE_MESSAGE_NAME_MAX 249	/* bytes of NAME: the partial file's name, ".NAME.part", must fit in NAME_MAX */

struct file_message_error {
	char text[1024];
};

/* One message, taken apart. */
struct file_message {
	uint64_t size;
	uint64_t offset;
	char name[FILE_MESSAGE_NAME_MAX + 1];
	const void *data;	/* points into the message that was parsed */
	size_t len;
};

/**
 * file_message_parse() - Take a message apart and check all that one message can show.
 *
 * Return: 0, or -1 with errno EBADMSG and @error filled in.
 */
int file_message_parse(struct file_message *msg, const void *message, size_t len, struct file_message_error *error);

/**
 * file_message_format() - Write a message's first line, the newline included and without a terminating NUL.
 * @line: room for FILE_MESSAGE_MAX bytes. What is left of them behind the line is for the chunk.
 *
 * Return: bytes of the line, or -1 with errno EINVAL (the name cannot be sent) and @error filled in.
 */
ssize_t file_message_format(char *line, uint64_t size, uint64_t offset, const char *name,
			    struct file_message_error *error);

/* A file on its way out. */
struct file_sender {
	int fd;
	uint64_t size;
	uint64_t offset;	/* of the next chunk */
	bool done;
	char name[FILE_MESSAGE_NAME_MAX + 1];
};

/**
 * file_sender_open() - Begin to send the regular file @path, under the last component of its name.
 *
 * Return: 0, or -1 with errno and @error filled in. Nothing is to be closed then.
 */
int file_sender_open(struct file_sender *sender, const char *path, struct file_message_error *error);

/**
 * file_sender_next() - Make the next message.
 * @message: room for FILE_MESSAGE_MAX bytes.
 *
 * Return: bytes of the message; 0 when the whole file was handed out; -1 with errno and @error filled in, EIO when the
 * file was cut short since it was opened.
 */
ssize_t file_sender_next(struct file_sender *sender, void *message, struct file_message_error *error);

void file_sender_close(struct file_sender *sender);

/*
 * Files on their way in, one after the other, to a directory. A file grows as ".NAME.part" and is renamed to NAME when
 * it is complete, in place of an earlier file of that name; nobody sees half a file under its name. A file that is cut
 * off, by the end of the process even, stays as ".NAME.part", and its next chunk goes on from there.
 */
struct file_receiver {
	int dir;
	bool sync;
	int fd;			/* the file under way, -1 between files */
	uint64_t size;
	uint64_t offset;	/* of the chunk that must come next */
	char name[FILE_MESSAGE_NAME_MAX + 1];	/* of the file under way, or of the last complete one */
};

enum file_receiver_result {
	FILE_RECEIVER_ERROR = -1,
	FILE_RECEIVER_MORE = 0,		/* taken, more chunks of this file must follow */
	FILE_RECEIVER_COMPLETE = 1,	/* taken, and the file named in receiver->name is complete */
};

/**
 * file_receiver_open() - Begin to receive files into the directory @path.
 * @sync: have each chunk on stable storage before file_receiver_take() returns.
 *
 * Return: 0, or -1 with errno and @error filled in.
 */
int file_receiver_open(struct file_receiver *receiver, const char *path, bool sync,
		       struct file_message_error *error);

/**
 * file_receiver_take() - Take one message.
 *
 * A message that begins another file while one is under way is taken, and the cut off file is removed. One that was taken
 * before but perhaps not acknowledged, because the process ended, may come again as the first message of the next process.
 *
 * Return: see the enum. @error is the empty string, or else why the message was not taken; with a message taken, which file
 * was cut off. FILE_RECEIVER_ERROR comes with errno EBADMSG when the message is malformed or not the next one (the file
 * under way is removed, the receiver waits for the beginning of another), with EBUSY when another process receives a
 * file of this name here, and with any other errno when it could not be stored (the same message may be offered again).
 */
enum file_receiver_result file_receiver_take(struct file_receiver *receiver, const void *message, size_t len,
					     struct file_message_error *error);

/* A file under way stays as ".NAME.part". */
void file_receiver_close(struct file_receiver *receiver);

#endif
