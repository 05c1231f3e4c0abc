/*
 * The first process of a job's container: init PROGRAM [ARGUMENT...]
 *
 * Runs the program and exits with its exit code, or 128 plus the number of the signal that ended it. The container
 * runtime then ends what the program left running.
 *
 * It is PID 1, except in a pod whose containers share their processes: there it adopts what the program leaves behind.
 *
 * SIGTERM goes to every process of the container. The init then waits until all of them have ended, so each of them can
 * use the time that the engine gives before SIGKILL. The exit code remains the program's. Any other signal goes to the
 * program alone.
 *
 * A program without a slash is searched for in PATH. No shell is involved: a file that the kernel cannot execute is
 * exit code 126 and a message on standard error; a file that does not exist is exit code 127.
 *
 * No libc, so that the binary is small, static, and independent of what the image contains. Built by ./build.
 */

#include <asm/unistd.h>
#include <linux/errno.h>
#include <linux/fcntl.h>
#include <linux/prctl.h>
#include <linux/signal.h>
#include <linux/wait.h>

#define CANNOT_EXECUTE 126
#define NOT_FOUND 127
#define PATH_MAX 4096
#define SIGNAL_SET_BYTES 8 /* the kernel's; not libc's sigset_t */

#define PATH_IF_UNSET "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"

typedef unsigned long word;

/* -- system calls ------------------------------------------------------------------------------------------------- */

#if defined(__x86_64__)

__asm__(".globl _start\n"
        "_start:\n"
        "    xor %ebp, %ebp\n"
        "    mov %rsp, %rdi\n"
        "    and $-16, %rsp\n"
        "    call begin\n");

static long call(long number, long a, long b, long c, long d, long e)
{
    long result;
    register long r10 __asm__("r10") = d;
    register long r8 __asm__("r8") = e;
    __asm__ volatile("syscall"
                     : "=a"(result)
                     : "a"(number), "D"(a), "S"(b), "d"(c), "r"(r10), "r"(r8)
                     : "rcx", "r11", "memory");
    return result;
}

#elif defined(__aarch64__)

__asm__(".globl _start\n"
        "_start:\n"
        "    mov x29, #0\n"
        "    mov x30, #0\n"
        "    mov x0, sp\n"
        "    bl begin\n");

static long call(long number, long a, long b, long c, long d, long e)
{
    register long x8 __asm__("x8") = number;
    register long x0 __asm__("x0") = a;
    register long x1 __asm__("x1") = b;
    register long x2 __asm__("x2") = c;
    register long x3 __asm__("x3") = d;
    register long x4 __asm__("x4") = e;
    __asm__ volatile("svc #0" : "+r"(x0) : "r"(x8), "r"(x1), "r"(x2), "r"(x3), "r"(x4) : "memory");
    return x0;
}

#else
#error "no system calls for this architecture"
#endif

static void leave(int code)
{
    for (;;)
        call(__NR_exit_group, code, 0, 0, 0, 0);
}

static void set_blocked(const word *signals, word *before)
{
    call(__NR_rt_sigprocmask, SIG_SETMASK, (long)signals, (long)before, SIGNAL_SET_BYTES, 0);
}

static long send(long pid, long signal)
{
    return call(__NR_kill, pid, signal, 0, 0, 0);
}

/* -- running the program -------------------------------------------------------------------------------------------- */

static word length(const char *text)
{
    word count = 0;
    while (text[count])
        count++;
    return count;
}

static void complain(const char *program, const char *reason)
{
    const char *parts[] = {"exec ", program, ": ", reason, "\n"};
    for (word i = 0; i < sizeof parts / sizeof *parts; i++)
        call(__NR_write, 2, (long)parts[i], length(parts[i]), 0, 0);
}

static const char *search_path(char **environment)
{
    for (; *environment; environment++) {
        const char *entry = *environment;
        if (entry[0] == 'P' && entry[1] == 'A' && entry[2] == 'T' && entry[3] == 'H' && entry[4] == '=')
            return entry + 5;
    }
    return PATH_IF_UNSET;
}

/* The error of an execve of that file, or of the interpreter that it names. */
static long attempt(const char *file, char **arguments, char **environment)
{
    long error = -call(__NR_execve, (long)file, (long)arguments, (long)environment, 0, 0);
    int exists = call(__NR_faccessat, AT_FDCWD, (long)file, 0, 0, 0) == 0;
    return error == ENOENT && exists ? ELIBACC : error;
}

/* Returns only if the program cannot be executed: why. As execvp(3) searches, but without its fallback to a shell. */
static long execute(char **arguments, char **environment)
{
    const char *program = arguments[0];
    word size = length(program);
    long error = ENOENT;
    for (word i = 0; i < size; i++)
        if (program[i] == '/')
            return attempt(program, arguments, environment);
    if (size == 0)
        return ENOENT;
    for (const char *path = search_path(environment);; path++) {
        char file[PATH_MAX];
        word used = 0;
        for (; *path && *path != ':'; path++)
            if (used < sizeof file)
                file[used++] = *path;
        if (used + size + 2 <= sizeof file) {
            if (used)
                file[used++] = '/'; /* an empty entry is the working directory */
            for (word i = 0; i <= size; i++)
                file[used++] = program[i];
            long failed = attempt(file, arguments, environment);
            if (failed != ENOENT && failed != ENOTDIR && failed != EACCES)
                return failed;
            if (failed == EACCES)
                error = EACCES; /* unless a later directory has one that can be executed */
        }
        if (!*path)
            return error;
    }
}

static void run(char **arguments, char **environment)
{
    long error = execute(arguments, environment);
    const char *reason = error == ENOENT || error == ENOTDIR ? "not found"
                         : error == ELIBACC                  ? "its interpreter is not found"
                         : error == EACCES                   ? "permission denied"
                         : error == ENOEXEC                  ? "exec format error"
                         : error == E2BIG                    ? "the arguments and environment are too long"
                                                             : "the kernel cannot execute it";
    complain(arguments[0], reason);
    leave(error == ENOENT || error == ENOTDIR ? NOT_FOUND : CANNOT_EXECUTE);
}

/* -- the first process -------------------------------------------------------------------------------------------- */

static int exit_code(int status)
{
    return status & 0x7f ? 128 + (status & 0x7f) : status >> 8 & 0xff;
}

static void watch(long program)
{
    const word all = ~0UL;
    int ending = 0, running = 1, code = 0;
    for (;;) {
        long signal = call(__NR_rt_sigtimedwait, (long)&all, 0, 0, SIGNAL_SET_BYTES, 0);
        if (signal == SIGTERM) {
            ending = 1;
            send(-1, SIGTERM);
        } else if (signal == SIGCHLD) {
            int status;
            long ended;
            while ((ended = call(__NR_wait4, -1, (long)&status, WNOHANG, 0, 0)) > 0)
                if (ended == program) {
                    running = 0;
                    code = exit_code(status);
                }
            if (!running && (!ending || ended == -ECHILD))
                leave(code);
        } else if (signal > 0 && running) {
            send(program, signal);
        }
    }
}

__attribute__((used)) static void begin(word *stack)
{
    char **arguments = (char **)(stack + 2); /* without the init's own name */
    char **environment = (char **)(stack + 1) + stack[0] + 1;
    const word all = ~0UL;
    word before;
    /* Its parent is outside of the container's processes. Elsewhere SIGTERM would go to the whole machine. */
    if (stack[0] < 2 || call(__NR_getppid, 0, 0, 0, 0, 0) != 0) {
        complain("init", "must be the first process of a container and get a program to run");
        leave(CANNOT_EXECUTE);
    }
    call(__NR_prctl, PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0);
    set_blocked(&all, &before); /* for good: the init waits for signals, and none is lost before it does */
    long program = call(__NR_clone, SIGCHLD, 0, 0, 0, 0);
    if (program == 0) {
        call(__NR_setpgid, 0, 0, 0, 0, 0);
        set_blocked(&before, 0);
        run(arguments, environment);
    }
    if (program < 0) {
        complain(arguments[0], "no process can be made");
        leave(CANNOT_EXECUTE);
    }
    watch(program);
}
