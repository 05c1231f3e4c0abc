#include "connection.h"

#include <linux/in.h>
#include <linux/tcp.h>
#include <linux/time_types.h>

#define REST_MILLISECONDS 10000

#define SOCKET_LEVEL 1     /* SOL_SOCKET */
#define RECEIVE_TIMEOUT 20 /* SO_RCVTIMEO, SO_SNDTIMEO */
#define SEND_TIMEOUT 21
#define NO_SIGNAL 0x4000 /* MSG_NOSIGNAL */
#define SENDING 1        /* SHUT_WR */

static long connection;
struct received received;

void limit_silence(long milliseconds)
{
    struct __kernel_old_timeval silence = {milliseconds / 1000, milliseconds % 1000 * 1000};
    call(__NR_setsockopt, connection, SOCKET_LEVEL, RECEIVE_TIMEOUT, (long)&silence, sizeof silence);
    call(__NR_setsockopt, connection, SOCKET_LEVEL, SEND_TIMEOUT, (long)&silence, sizeof silence);
}

void begin_connection(long socket)
{
    int yes = 1;
    connection = socket;
    call(__NR_setsockopt, connection, IPPROTO_TCP, TCP_NODELAY, (long)&yes, sizeof yes);
}

long receive_more(word limit)
{
    long got;
    if (received.begin == received.end)
        received.begin = received.end = 0;
    do
        got = call6(__NR_recvfrom, connection, (long)(received.bytes + received.end), limit - received.end, 0, 0, 0);
    while (got == -EINTR);
    if (got > 0)
        received.end += got;
    return got;
}

long transmit(const char *data, word size, int flags)
{
    while (size) {
        long sent = call6(__NR_sendto, connection, (long)data, size, flags | NO_SIGNAL, 0, 0);
        if (sent < 0 && sent != -EINTR)
            return sent;
        if (sent > 0) {
            data += sent;
            size -= sent;
        }
    }
    return 0;
}

long transmit_file(long file, word size)
{
    return call(__NR_sendfile, connection, file, 0, size, 0);
}

void take_rest(void)
{
    long deadline = now() + REST_MILLISECONDS;
    call(__NR_shutdown, connection, SENDING, 0, 0, 0);
    limit_silence(1000);
    do
        received.begin = received.end = 0;
    while (receive_more(BUFFER_BYTES) > 0 && now() < deadline);
}
