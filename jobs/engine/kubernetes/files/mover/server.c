#include "server.h"

#include <linux/in.h>
#include <linux/in6.h>
#include <linux/mman.h>
#include <linux/poll.h>
#include <linux/prctl.h>
#include <linux/signal.h>
#include <linux/signalfd.h>
#include <linux/time_types.h>
#include <linux/wait.h>

#define INTERNET 2 /* AF_INET */
#define INTERNET_6 10
#define STREAM 1
#define SOCKET_LEVEL 1
#define REUSE_ADDRESS 2
#define BACKLOG 64
#define MAX_CONNECTIONS 32
#define LAST 42   /* the exit code of a connection that ends the service */
#define ENDED 143 /* the exit code after SIGTERM */
#define RETRY_NANOSECONDS 50000000

struct slot {
    long process; /* 0 if the slot is free */
    long since;
    volatile int is_known;
};

static struct slot *slots; /* shared with the processes of the connections */

/* -- the port --------------------------------------------------------------------------------------------------------------------- */

static long bind_socket(word port)
{
    int yes = 1, no = 0;
    struct sockaddr_in6 any = {.sin6_family = INTERNET_6, .sin6_port = __builtin_bswap16(port)};
    struct sockaddr_in any4 = {.sin_family = INTERNET, .sin_port = __builtin_bswap16(port)};
    long listener = call(__NR_socket, INTERNET_6, STREAM, 0, 0, 0), error = listener;
    if (listener >= 0) {
        call(__NR_setsockopt, listener, SOCKET_LEVEL, REUSE_ADDRESS, (long)&yes, sizeof yes);
        call(__NR_setsockopt, listener, IPPROTO_IPV6, IPV6_V6ONLY, (long)&no, sizeof no);
        error = call(__NR_bind, listener, (long)&any, sizeof any, 0, 0);
    }
    if (error < 0 && error != -EADDRINUSE) { /* a kernel without IPv6 */
        close_file(listener);
        listener = call(__NR_socket, INTERNET, STREAM, 0, 0, 0);
        call(__NR_setsockopt, listener, SOCKET_LEVEL, REUSE_ADDRESS, (long)&yes, sizeof yes);
        error = call(__NR_bind, listener, (long)&any4, sizeof any4, 0, 0);
    }
    if (error >= 0)
        error = call(__NR_listen, listener, BACKLOG, 0, 0, 0);
    if (error >= 0)
        return listener;
    close_file(listener);
    return error;
}

/* The job may have taken the port. It is free again when the job has ended, which is early enough for its outputs. */
static long listen_patiently(word port)
{
    struct __kernel_timespec pause = {0, RETRY_NANOSECONDS};
    long listener;
    while ((listener = bind_socket(port)) == -EADDRINUSE)
        call(__NR_nanosleep, (long)&pause, 0, 0, 0, 0);
    return listener;
}

/* -- connections -------------------------------------------------------------------------------------------------------------------- */

static struct slot *current;

static void set_known(void)
{
    current->is_known = 1;
}

/* Reap connections that have ended, that process only if it is not -1. Returns whether one of them ends the service. */
static int reap(long process)
{
    int status, is_last = 0;
    long ended;
    while ((ended = call(__NR_wait4, process, (long)&status, process < 0 ? WNOHANG : 0, 0, 0)) > 0) {
        for (int i = 0; i < MAX_CONNECTIONS; i++)
            if (slots[i].process == ended)
                slots[i].process = 0;
        is_last |= status == LAST << 8;
        if (process > 0)
            break;
    }
    return is_last;
}

/* A free slot. If there is none, the connection that has been unknown for the longest time loses its own; 0 if all are known. */
static struct slot *take_slot(void)
{
    struct slot *oldest = 0;
    for (int i = 0; i < MAX_CONNECTIONS; i++) {
        struct slot *slot = &slots[i];
        if (!slot->process)
            return slot;
        if (!slot->is_known && (!oldest || slot->since < oldest->since))
            oldest = slot;
    }
    if (oldest) {
        call(__NR_kill, oldest->process, SIGKILL, 0, 0, 0);
        reap(oldest->process);
    }
    return oldest;
}

static void start_connection(long listener, long connection, int (*serve)(long, void (*)(void)))
{
    current = take_slot();
    if (current) {
        current->is_known = 0;
        current->since = now();
        long process = call(__NR_clone, SIGCHLD, 0, 0, 0, 0);
        if (process == 0) {
            close_file(listener);
            call(__NR_prctl, PR_SET_PDEATHSIG, SIGKILL, 0, 0, 0);
            leave(serve(connection, set_known) ? LAST : 0);
        }
        current->process = process > 0 ? process : 0;
    }
    close_file(connection);
}

int run_server(word port, int (*serve)(long, void (*)(void)))
{
    const word signals = 1UL << (SIGCHLD - 1) | 1UL << (SIGTERM - 1);
    long memory = call6(__NR_mmap, 0, sizeof(struct slot) * MAX_CONNECTIONS, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
    slots = (struct slot *)memory;
    call(__NR_rt_sigprocmask, SIG_BLOCK, (long)&signals, 0, SIGNAL_SET_BYTES, 0);
    struct pollfd events[] = {
        {.fd = listen_patiently(port), .events = POLLIN},
        {.fd = call(__NR_signalfd4, -1, (long)&signals, SIGNAL_SET_BYTES, 0, 0), .events = POLLIN},
    };
    if (events[0].fd < 0 || events[1].fd < 0 || (memory < 0 && memory > -4096))
        return 1;
    for (;;) {
        call(__NR_ppoll, (long)events, 2, 0, 0, SIGNAL_SET_BYTES);
        if (events[1].revents) {
            struct signalfd_siginfo came;
            call(__NR_read, events[1].fd, (long)&came, sizeof came, 0, 0);
            /* One from the job's processes is meant for these. That of the node comes from outside of the process namespace. */
            if (came.ssi_signo == SIGTERM && came.ssi_pid == 0)
                return ENDED;
            if (reap(-1))
                return 0;
        }
        if (events[0].revents) {
            long connection = call(__NR_accept4, events[0].fd, 0, 0, O_CLOEXEC, 0);
            if (connection >= 0)
                start_connection(events[0].fd, connection, serve);
        }
    }
}
