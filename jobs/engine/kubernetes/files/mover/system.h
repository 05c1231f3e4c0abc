/*
 * The kernel's system calls and a few functions on memory, since there is no libc. A call that fails returns a negative
 * error number.
 */

#pragma once

#include <asm/unistd.h>
#include <linux/errno.h>
#include <linux/fcntl.h>
#include <linux/stat.h>

typedef unsigned long word;

#define PATH_BYTES 4096 /* PATH_MAX, with the zero at the end */
#define NAME_BYTES 256
#define SIGNAL_SET_BYTES 8 /* the kernel's; not libc's sigset_t */

#if defined(__x86_64__)

static inline long call(long number, long a, long b, long c, long d, long e)
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

static inline long call6(long number, long a, long b, long c, long d, long e, long f)
{
    long result;
    register long r10 __asm__("r10") = d;
    register long r8 __asm__("r8") = e;
    register long r9 __asm__("r9") = f;
    __asm__ volatile("syscall"
                     : "=a"(result)
                     : "a"(number), "D"(a), "S"(b), "d"(c), "r"(r10), "r"(r8), "r"(r9)
                     : "rcx", "r11", "memory");
    return result;
}

#elif defined(__aarch64__)

static inline long call6(long number, long a, long b, long c, long d, long e, long f)
{
    register long x8 __asm__("x8") = number;
    register long x0 __asm__("x0") = a;
    register long x1 __asm__("x1") = b;
    register long x2 __asm__("x2") = c;
    register long x3 __asm__("x3") = d;
    register long x4 __asm__("x4") = e;
    register long x5 __asm__("x5") = f;
    __asm__ volatile("svc #0" : "+r"(x0) : "r"(x8), "r"(x1), "r"(x2), "r"(x3), "r"(x4), "r"(x5) : "memory");
    return x0;
}

static inline long call(long number, long a, long b, long c, long d, long e)
{
    return call6(number, a, b, c, d, e, 0);
}

#else
#error "no system calls for this architecture"
#endif

/* As getdents64 writes them. */
struct directory_entry {
    word inode;
    long next;
    unsigned short size;
    unsigned char type;
    char name[];
};

__attribute__((noreturn)) void leave(int code);

/* Close a file if it is open. */
void close_file(long file);

/* Milliseconds of a clock that is never set. */
long now(void);

/* What is at a name in a directory, without following a link: 0 or an error. An empty name is the directory itself. */
long look(long directory, const char *name, struct statx *found);

/* Write all bytes: 0 or an error. */
long write_all(long file, const char *data, word size);

/* -- memory and text, some of which the compiler calls, too ------------------------------------------------------------- */

void *memcpy(void *to, const void *from, word size);
void *memmove(void *to, const void *from, word size);
void *memset(void *at, int value, word size);
int memcmp(const void *one, const void *other, word size);
word length(const char *text);
int equal(const char *one, const char *other);

/* Append text, or a number in that base, to what ends at `at`, and return the new end. The caller has made room. */
char *append(char *at, const char *text);
char *append_number(char *at, word number, word base);

/* Read a number in that base up to `end`, and return where it stops; 0 if there is none, or it does not fit 62 bits. */
const char *parse_number(const char *text, const char *end, word base, word *number);
