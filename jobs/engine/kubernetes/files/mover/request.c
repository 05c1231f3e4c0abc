#include "http.h"

#include "connection.h"

#define HEAD_BYTES (16 * 1024)
#define HEAD_MILLISECONDS 10000
#define BODY_SECONDS 600 /* between two bytes: the worker may wait for the source or the destination of a file */

static word left; /* of the body's current chunk */
static enum { NO_BODY, BEFORE_CHUNK, IN_CHUNK, AFTER_CHUNK, ENDED, BROKEN } body;

/* -- the head of a request ------------------------------------------------------------------------------------------------ */

/* Find the empty line at the head's end: the position behind it, or 0. */
static word end_of_head(word from)
{
    for (word i = from < 4 ? 4 : from; i <= received.end; i++)
        if (memcmp(received.bytes + i - 4, "\r\n\r\n", 4) == 0)
            return i;
    return 0;
}

/* The value of the header `name` (in lower case, with a colon) in lines that end at `stop`, or 0. */
static const char *header(const char *line, const char *stop, const char *name)
{
    for (; line < stop; line++) {
        word i = 0;
        while (name[i] && line + i < stop && (line[i] | (name[i] == ':' ? 0 : 0x20)) == name[i])
            i++;
        if (!name[i]) {
            for (line += i; *line == ' '; line++)
                ;
            return line;
        }
        while (*line != '\n')
            line++;
    }
    return 0;
}

/* Takes as long for every token of this size: its time tells nothing about the right one. */
static int is_token(const char *text, const char *stop, const char *token)
{
    static const char scheme[] = "Bearer ";
    unsigned char difference = 0;
    if (!text || stop - text < (long)(sizeof scheme - 1 + TOKEN_BYTES) || memcmp(text, scheme, sizeof scheme - 1) != 0)
        return 0;
    text += sizeof scheme - 1;
    for (int i = 0; i < TOKEN_BYTES; i++)
        difference |= text[i] ^ token[i];
    return difference == 0 && text[TOKEN_BYTES] == '\r';
}

/* Decode what is percent-encoded, in place; 0 if it is invalid. */
static int decode(char *text)
{
    char *to = text;
    for (; *text; text++) {
        word byte = (unsigned char)*text;
        if (byte == '%') {
            if (!text[1] || !text[2] || parse_number(text + 1, text + 3, 16, &byte) != text + 3 || byte == 0)
                return 0;
            text += 2;
        }
        *to++ = byte;
    }
    *to = 0;
    return 1;
}

static int parse_line(char *line, struct request *request)
{
    static const char *const methods[] = {[GET] = "GET /", [PUT] = "PUT /", [POST] = "POST /"};
    /* Copies, since the body takes the place of the head. */
    static char operation[HEAD_BYTES], rest[HEAD_BYTES];
    for (enum method method = GET; method <= POST; method++) {
        if (memcmp(line, methods[method], length(methods[method])) != 0)
            continue;
        char *at = line + length(methods[method]), *slash = at;
        while (*slash > ' ' && *slash != '/')
            slash++;
        char *end = slash;
        while (*end > ' ')
            end++;
        memcpy(operation, at, slash - at);
        memcpy(rest, slash, end - slash);
        *request = (struct request){method, operation, rest};
        return memcmp(end, " HTTP/1.1\r", 10) == 0 && decode(rest);
    }
    return 0;
}

int receive_request(const struct tokens *tokens, struct request *request)
{
    long deadline = now() + HEAD_MILLISECONDS;
    word head = 0, seen = 0;
    while (!head) {
        long time_left = deadline - now();
        if (time_left <= 0)
            return 0;
        limit_silence(time_left);
        if (receive_more(HEAD_BYTES) <= 0) {
            if (received.end == HEAD_BYTES)
                send_answer(0, (struct answer){431, "the head of the request is too long"}, "");
            return 0;
        }
        head = end_of_head(seen);
        seen = received.end;
    }
    received.begin = head;
    const char *stop = received.bytes + head - 2; /* without the empty line */
    if (!is_token(header(received.bytes, stop, "authorization:"), stop, tokens->asked)) {
        send_answer(0, (struct answer){401, "the token is missing or wrong"}, "");
        return 0;
    }
    limit_silence(BODY_SECONDS * 1000l);
    const char *encoding = header(received.bytes, stop, "transfer-encoding:");
    body = encoding && memcmp(encoding, "chunked\r", 8) == 0 ? BEFORE_CHUNK : NO_BODY;
    if (parse_line(received.bytes, request))
        return 1;
    send_answer(tokens, (struct answer){400, "the request is invalid"}, "");
    return 0;
}

/* -- the body ------------------------------------------------------------------------------------------------------------- */

/* The next byte of what frames the body, or -1. */
static int next_byte(void)
{
    if (received.begin == received.end && receive_more(BUFFER_BYTES) <= 0)
        return -1;
    return (unsigned char)received.bytes[received.begin++];
}

/* Read a line of at most 32 bytes, without its end: its size, or -1. */
static long read_line(char *line)
{
    for (long size = 0; size < 32; size++) {
        int byte = next_byte();
        if (byte < 0)
            return -1;
        line[size] = byte;
        if (byte == '\n')
            return size && line[size - 1] == '\r' ? size - 1 : -1;
    }
    return -1;
}

/* Go on to the next chunk with content, or to the end. */
static void next_chunk(void)
{
    char line[32];
    long size;
    if (body == AFTER_CHUNK && read_line(line) != 0) {
        body = BROKEN;
        return;
    }
    size = read_line(line);
    body = size > 0 && parse_number(line, line + size, 16, &left) == line + size ? IN_CHUNK : BROKEN;
    if (body == IN_CHUNK && left == 0)
        body = read_line(line) == 0 ? ENDED : BROKEN;
}

long receive(char **data, word limit)
{
    if (body == BEFORE_CHUNK || body == AFTER_CHUNK)
        next_chunk();
    if (body == IN_CHUNK && received.begin == received.end && receive_more(BUFFER_BYTES) <= 0)
        body = BROKEN;
    if (body != IN_CHUNK)
        return body == BROKEN ? -1 : 0;
    word size = received.end - received.begin;
    size = size < left ? size : left;
    size = size < limit ? size : limit;
    *data = received.bytes + received.begin;
    received.begin += size;
    left -= size;
    if (left == 0)
        body = AFTER_CHUNK;
    return size;
}

long receive_all(char *into, word size)
{
    word done = 0;
    while (done < size) {
        char *data;
        long got = receive(&data, size - done);
        if (got <= 0)
            return got < 0 || done ? -1 : 0;
        memcpy(into + done, data, got);
        done += got;
    }
    return done;
}
