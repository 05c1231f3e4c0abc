#include "http.h"

#include "connection.h"

#define OUTPUT_BYTES (64 * 1024)
#define PIECE_BYTES (4l * 1024 * 1024)

static char output[OUTPUT_BYTES];
static word output_size;

static void transmit_or_leave(const char *data, word size, int flags)
{
    if (transmit(data, size, flags) < 0)
        leave(1);
}

static char *append_head(char *at, const struct tokens *tokens, int status)
{
    at = append_number(append(at, "HTTP/1.1 "), status, 10);
    at = append(at, status < 300 ? " OK\r\n" : " Refused\r\n");
    if (tokens) {
        at = append(at, "Mover-Token: ");
        memcpy(at, tokens->answered, TOKEN_BYTES);
        at = append(at + TOKEN_BYTES, "\r\n");
    }
    return append(at, "Connection: close\r\n");
}

void send_answer(const struct tokens *tokens, struct answer answer, const char *headers)
{
    char *at = append_head(output, tokens, answer.status);
    at = append(append(at, headers), "Content-Length: ");
    at = append(append_number(at, length(answer.sentence), 10), "\r\n\r\n");
    at = append(at, answer.sentence);
    transmit(output, at - output, 0);
    take_rest();
}

void begin_body(const struct tokens *tokens)
{
    char *at = append(append_head(output, tokens, 200), "Transfer-Encoding: chunked\r\n\r\n");
    transmit_or_leave(output, at - output, MORE_FOLLOWS);
}

static void send_size(word size)
{
    char line[32];
    char *at = append(append_number(line, size, 16), "\r\n");
    transmit_or_leave(line, at - line, MORE_FOLLOWS);
}

static void flush(void)
{
    if (output_size) {
        send_size(output_size);
        transmit_or_leave(output, output_size, MORE_FOLLOWS);
        transmit_or_leave("\r\n", 2, MORE_FOLLOWS);
    }
    output_size = 0;
}

void send_piece(const char *data, word size)
{
    if (size > sizeof output - output_size)
        flush();
    memcpy(output + output_size, data, size); /* never as large as the buffer */
    output_size += size;
}

static void send_zeros(word size)
{
    static const char zeros[4096];
    for (word some; size; size -= some) {
        some = size < sizeof zeros ? size : sizeof zeros;
        transmit_or_leave(zeros, some, MORE_FOLLOWS);
    }
}

void send_file(long file, word size)
{
    flush();
    for (word piece; size; size -= piece) {
        piece = size < PIECE_BYTES ? size : PIECE_BYTES;
        send_size(piece);
        word unsent = piece;
        while (unsent) {
            long sent = transmit_file(file, unsent);
            if (sent == 0)
                break;
            if (sent < 0 && sent != -EINTR)
                leave(1);
            if (sent > 0)
                unsent -= sent;
        }
        send_zeros(unsent);
        transmit_or_leave("\r\n", 2, MORE_FOLLOWS);
    }
}

void end_body(void)
{
    flush();
    transmit_or_leave("0\r\n\r\n", 5, 0);
    take_rest();
}

struct answer failure(long error)
{
    switch (-error) {
    case ENOENT:
    case ENOTDIR:
    case ELOOP:
    case ENAMETOOLONG:
    case EINVAL:
        return (struct answer){404, "there is no such path"};
    case EACCES:
    case EPERM:
        return (struct answer){403, "the helper of the pod may not do that"};
    case EEXIST:
    case EISDIR:
    case ENOTEMPTY:
        return (struct answer){409, "a directory or something else is in the way"};
    case EROFS:
        return (struct answer){409, "no file can be put there any more"};
    case ENOSPC:
    case EDQUOT:
        return (struct answer){507, "the disk of the cluster's node is full"};
    default:
        return (struct answer){500, "the helper of the pod failed"};
    }
}
