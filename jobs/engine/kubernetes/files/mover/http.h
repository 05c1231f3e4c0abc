/* One request on one connection, and its answer: as much of HTTP/1.1 as the worker speaks. */

#pragma once

#include "system.h"

#define TOKEN_BYTES 64

/* What the worker shows, and what shows the worker that it talks to the mover and not to a process that took its port. */
struct tokens {
    char asked[TOKEN_BYTES];
    char answered[TOKEN_BYTES];
};

enum method { GET, PUT, POST };

struct request {
    enum method method;
    const char *operation; /* the first name of the target: stat, tar, ... */
    const char *rest;      /* of the target, decoded: empty, or it begins with a slash */
};

/* Answers are made of a status and one sentence, or of a status and a body that is sent in pieces. */
struct answer {
    int status;
    const char *sentence;
};

/*
 * Receive the head of a request within a few seconds, and check its token. Returns 1 if it is a request of the worker;
 * otherwise the answer was sent.
 */
int receive_request(const struct tokens *tokens, struct request *request);

/*
 * The next bytes of the body, at most `limit`: how many there are at `*data`, 0 at its end, -1 if the body is broken off or
 * invalid. They stay where they are until the next call.
 */
long receive(char **data, word limit);

/* Receive exactly that many bytes: `size`, 0 if the body had ended before them, -1 otherwise. */
long receive_all(char *into, word size);

/* Send an answer with a sentence, or with header lines and no body. Then take what the worker still sends. */
void send_answer(const struct tokens *tokens, struct answer answer, const char *headers);

/* Send the head of an answer whose body comes in pieces. From here on a failure ends the process: the body is broken off. */
void begin_body(const struct tokens *tokens);
void send_piece(const char *data, word size);
void send_file(long file, word size); /* followed by zeros if the file has become shorter */
void end_body(void);

/* The answer that an error of a system call means. */
struct answer failure(long error);
