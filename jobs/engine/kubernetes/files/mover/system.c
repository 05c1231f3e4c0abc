#include "system.h"

#include <linux/time.h>
#include <linux/time_types.h>

void leave(int code)
{
    for (;;)
        call(__NR_exit_group, code, 0, 0, 0, 0);
}

void close_file(long file)
{
    if (file >= 0)
        call(__NR_close, file, 0, 0, 0, 0);
}

long now(void)
{
    struct __kernel_timespec time = {0, 0};
    call(__NR_clock_gettime, CLOCK_MONOTONIC, (long)&time, 0, 0, 0);
    return time.tv_sec * 1000 + time.tv_nsec / 1000000;
}

long look(long directory, const char *name, struct statx *found)
{
    int flags = AT_SYMLINK_NOFOLLOW | (*name ? 0 : AT_EMPTY_PATH);
    return call(__NR_statx, directory, (long)name, flags, STATX_BASIC_STATS, (long)found);
}

long write_all(long file, const char *data, word size)
{
    while (size) {
        long written = call(__NR_write, file, (long)data, size, 0, 0);
        if (written < 0 && written != -EINTR)
            return written;
        if (written > 0) {
            data += written;
            size -= written;
        }
    }
    return 0;
}

void *memcpy(void *to, const void *from, word size)
{
    return memmove(to, from, size);
}

void *memmove(void *to, const void *from, word size)
{
    char *target = to;
    const char *source = from;
    if (target <= source)
        for (word i = 0; i < size; i++)
            target[i] = source[i];
    else
        while (size--)
            target[size] = source[size];
    return to;
}

void *memset(void *at, int value, word size)
{
    for (word i = 0; i < size; i++)
        ((char *)at)[i] = value;
    return at;
}

int memcmp(const void *one, const void *other, word size)
{
    const unsigned char *a = one, *b = other;
    for (word i = 0; i < size; i++)
        if (a[i] != b[i])
            return a[i] - b[i];
    return 0;
}

word length(const char *text)
{
    word count = 0;
    while (text[count])
        count++;
    return count;
}

int equal(const char *one, const char *other)
{
    return length(one) == length(other) && memcmp(one, other, length(one)) == 0;
}

char *append(char *at, const char *text)
{
    word size = length(text);
    memcpy(at, text, size);
    return at + size;
}

char *append_number(char *at, word number, word base)
{
    char digits[64];
    int count = 0;
    do {
        digits[count++] = "0123456789abcdef"[number % base];
        number /= base;
    } while (number);
    while (count)
        *at++ = digits[--count];
    return at;
}

static word digit(char letter)
{
    if (letter >= '0' && letter <= '9')
        return letter - '0';
    if (letter >= 'a' && letter <= 'f')
        return letter - 'a' + 10;
    if (letter >= 'A' && letter <= 'F')
        return letter - 'A' + 10;
    return 16;
}

const char *parse_number(const char *text, const char *end, word base, word *number)
{
    const char *start = text;
    for (*number = 0; text < end && digit(*text) < base; text++) {
        if (*number >> 57)
            return 0;
        *number = *number * base + digit(*text);
    }
    return text == start ? 0 : text;
}
