/* The connection of this process, and the bytes that come over it. */

#pragma once

#include "system.h"

#define BUFFER_BYTES (256 * 1024)
#define MORE_FOLLOWS 0x8000 /* MSG_MORE */

/* What was received: the bytes from `begin` to `end` were not used yet. */
struct received {
    char bytes[BUFFER_BYTES];
    word begin, end;
};
extern struct received received;

void begin_connection(long socket);

/* Let receiving and sending fail if no byte moves for that long. */
void limit_silence(long milliseconds);

/* Receive more, unless `limit` bytes are in the buffer: how many, 0 at the end of the connection, or an error. */
long receive_more(word limit);

/* Send bytes: 0 or an error. */
long transmit(const char *data, word size, int flags);

/* Send bytes of a file: as sendfile. */
long transmit_file(long file, word size);

/* Take what is still sent: closing a socket with unread bytes would destroy the answer on its way. */
void take_rest(void);
