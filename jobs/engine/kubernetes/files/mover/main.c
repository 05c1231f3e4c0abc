/*
 * Moves the files of a job between its pod and the worker.
 *
 *   mover inputs PORT WORKSPACE MOUNTED TOKENS    serve until the worker says that all inputs are in
 *   mover outputs PORT WORKSPACE MOUNTED TOKENS   serve until the pod is removed
 *
 * WORKSPACE is the path of the workspace in the job's container, MOUNTED where it is here, and TOKENS a directory with the
 * files `asked` and `answered`. The worker sends requests over HTTP (see ../mover_client.py):
 *
 *   GET /user             as which user it runs: headers Uid, Gid
 *   GET /stat/PATH        what is there: headers Kind, Size; for a link Target, and Path if the link is on the way
 *   GET /tar/PATH         a tar archive of the file or directory
 *   PUT /tar/PATH         unpack the body, a tar archive, into the directory; only for inputs
 *   POST /signal/NUMBER   send a signal to all processes of the job; only for outputs. Header Count: to how many
 *   POST /signal/NUMBER/first    only to the process that its container was started with
 *   POST /finish          exit; nothing for outputs: the worker says again that all inputs are in, as after an outage
 *
 * The job may be hostile, and so may be other pods. Without the token a request gets 401 and takes no more than a few
 * seconds and kilobytes. No link is followed, no device or pipe opened for its content, and memory does not grow with a file.
 * No libc, so that the binary is small, static, and independent of the image that it runs in. Built by ./build.
 */

#include "connection.h"
#include "pack.h"
#include "paths.h"
#include "processes.h"
#include "server.h"
#include "unpack.h"

#include <linux/prctl.h>

#define USAGE 2
#define FAILED 1
#define PERCENT_ENCODED(size) (3 * (size))

#if defined(__x86_64__)
__asm__(".globl _start\n"
        "_start:\n"
        "    xor %ebp, %ebp\n"
        "    mov %rsp, %rdi\n"
        "    and $-16, %rsp\n"
        "    call begin\n");
#else
__asm__(".globl _start\n"
        "_start:\n"
        "    mov x29, #0\n"
        "    mov x30, #0\n"
        "    mov x0, sp\n"
        "    bl begin\n");
#endif

static const char usage[] = "usage: mover inputs|outputs PORT WORKSPACE MOUNTED TOKENS\n";
static struct tokens tokens;
static int has_inputs;

static const struct answer ok = {200, ""};
static const struct answer unknown = {404, "there is no such operation"};
static const struct answer too_late = {409, "the job has started"};

__attribute__((noreturn)) static void fail(const char *what)
{
    write_all(2, "mover: ", 7);
    write_all(2, what, length(what));
    write_all(2, "\n", 1);
    leave(FAILED);
}

/* -- operations ----------------------------------------------------------------------------------------------------------------- */

/* Append bytes of a path in a form that every header may have. */
static char *append_encoded(char *at, const char *path, word size)
{
    for (word i = 0; i < size; i++) {
        unsigned char byte = path[i];
        if (byte > ' ' && byte < 0x7f && byte != '%') {
            *at++ = byte;
        } else {
            *at++ = '%';
            at = append_number(byte < 16 ? append(at, "0") : at, byte, 16);
        }
    }
    return at;
}

static const char *kind_of(const struct statx *found)
{
    return S_ISREG(found->stx_mode)   ? "file"
           : S_ISDIR(found->stx_mode) ? "directory"
           : S_ISLNK(found->stx_mode) ? "symlink"
                                      : "other";
}

static void send_stat(const char *path)
{
    static char headers[2 * PERCENT_ENCODED(PATH_BYTES) + 1024], target[PATH_BYTES];
    struct place place;
    struct statx found;
    const char *link, *end = path + length(path);
    long error = find_place(path, 0, &place, &link);
    long size = 0;
    if (link) {
        /* Answer with the link that is in the way. */
        for (end = link; end[-1] == '/'; end--)
            ;
        static char way[2 * PATH_BYTES];
        memcpy(way, path, end - path);
        const char *none;
        error = find_place(way, 0, &place, &none);
    }
    if (!error)
        error = look(place.directory, place.name, &found);
    if (!error && S_ISLNK(found.stx_mode))
        size = call(__NR_readlinkat, place.directory, (long)place.name, (long)target, sizeof target, 0);
    if (error || size < 0) {
        send_answer(&tokens, failure(error ? error : size), "");
        return;
    }
    char *at = append(append(append(headers, "Kind: "), kind_of(&found)), "\r\nSize: ");
    at = append(append_number(at, found.stx_size, 10), "\r\nPath: ");
    at = append(append_encoded(at, path, end - path), "\r\nTarget: ");
    *append(append_encoded(at, target, size), "\r\n") = 0;
    send_answer(&tokens, ok, headers);
}

static void send_user(void)
{
    char headers[64];
    char *at = append_number(append(headers, "Uid: "), call(__NR_getuid, 0, 0, 0, 0, 0), 10);
    at = append_number(append(at, "\r\nGid: "), call(__NR_getgid, 0, 0, 0, 0, 0), 10);
    *append(at, "\r\n") = 0;
    send_answer(&tokens, ok, headers);
}

static void send_signal(const char *rest)
{
    char headers[64];
    word number;
    const char *end = *rest ? parse_number(rest + 1, rest + length(rest), 10, &number) : 0;
    if (!end || (*end && !equal(end, "/first")) || number > 64) {
        send_answer(&tokens, (struct answer){400, "the number of the signal is invalid"}, "");
        return;
    }
    *append(append_number(append(headers, "Count: "), signal_job(number, *end), 10), "\r\n") = 0;
    send_answer(&tokens, ok, headers);
}

static int serve(const struct request *request)
{
    int is_tar = equal(request->operation, "tar");
    if (length(request->rest) >= PATH_BYTES) {
        send_answer(&tokens, failure(-ENAMETOOLONG), "");
    } else if (request->method == GET && is_tar) {
        send_archive(&tokens, request->rest);
    } else if (request->method == PUT && is_tar) {
        send_answer(&tokens, has_inputs ? unpack(request->rest) : too_late, "");
    } else if (request->method == GET && equal(request->operation, "stat")) {
        send_stat(request->rest);
    } else if (request->method == GET && equal(request->operation, "user")) {
        send_user();
    } else if (request->method == POST && !has_inputs && equal(request->operation, "signal")) {
        send_signal(request->rest);
    } else if (request->method == POST && equal(request->operation, "finish")) {
        send_answer(&tokens, ok, "");
        return has_inputs;
    } else {
        send_answer(&tokens, unknown, "");
    }
    return 0;
}

static int serve_connection(long socket, void (*is_known)(void))
{
    struct request request;
    begin_connection(socket);
    if (!receive_request(&tokens, &request))
        return 0;
    is_known();
    return serve(&request);
}

/* -- start ------------------------------------------------------------------------------------------------------------------------ */

static void read_token(const char *directory, const char *name, char *token)
{
    char path[PATH_BYTES];
    if (length(directory) > PATH_BYTES / 2)
        fail("the path of the tokens is too long");
    *append(append(append(path, directory), "/"), name) = 0;
    long file = call(__NR_openat, AT_FDCWD, (long)path, O_RDONLY | O_CLOEXEC, 0, 0);
    if (call(__NR_read, file, (long)token, TOKEN_BYTES, 0, 0) != TOKEN_BYTES)
        fail("the tokens cannot be read");
    close_file(file);
}

__attribute__((used)) static void begin(word *stack)
{
    word count = stack[0];
    char **arguments = (char **)(stack + 1);
    call(__NR_umask, 0, 0, 0, 0, 0);
    word port;
    has_inputs = count == 6 && equal(arguments[1], "inputs");
    if (!has_inputs && (count != 6 || !equal(arguments[1], "outputs"))) {
        write_all(2, usage, length(usage));
        leave(USAGE);
    }
    const char *end = arguments[2] + length(arguments[2]);
    if (parse_number(arguments[2], end, 10, &port) != end || port > 65535)
        fail("the port is invalid");
    /* Nothing of it can be read by the job's processes, which see it in /proc and may be of the same user. */
    call(__NR_prctl, PR_SET_DUMPABLE, 0, 0, 0, 0);
    read_token(arguments[5], "asked", tokens.asked);
    read_token(arguments[5], "answered", tokens.answered);
    if (open_workspace(arguments[4], arguments[3]) < 0)
        fail("the workspace cannot be opened");
    call(__NR_setsid, 0, 0, 0, 0, 0);
    leave(run_server(port, serve_connection));
}
