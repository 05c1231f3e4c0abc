#include "pack.h"

#include "paths.h"
#include "tar.h"

#define MAX_DEPTH 256
#define LIST_BYTES 4096
#define OPEN_FILE (O_RDONLY | O_NONBLOCK | O_NOFOLLOW | O_NOCTTY | O_CLOEXEC) /* in case it has become a pipe */
#define OPEN_DIRECTORY (O_RDONLY | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC)

struct listing {
    long directory;
    long begin, end; /* of the entries that were read and not used */
    word name_end;   /* of the directory's own name */
    char entries[LIST_BYTES] __attribute__((aligned(8)));
};

static struct listing listings[MAX_DEPTH];
static char name[2 * PATH_BYTES]; /* of the entry, relative to the parent of the path that was asked for */

/* -- headers ------------------------------------------------------------------------------------------------------------------ */

/* Octal digits, or binary with the first bit set if the field is too small for them. */
static void write_number(char *field, int size, word number)
{
    word rest = number;
    for (int i = size - 2; i >= 0; i--, rest >>= 3)
        field[i] = '0' + (rest & 7);
    field[size - 1] = 0;
    if (!rest)
        return;
    for (int i = size - 1; i > 0; i--, number >>= 8)
        field[i] = number;
    field[0] = (char)0x80;
}

static void pad(word size)
{
    static const char zeros[BLOCK];
    send_piece(zeros, -size % BLOCK);
}

static void send_header(struct header *header)
{
    memcpy(header->magic, "ustar ", 6);
    memcpy(header->version, " ", 2);
    write_number(header->checksum, sizeof header->checksum - 1, sum_of(header));
    header->checksum[7] = ' ';
    send_piece((const char *)header, BLOCK);
}

/* Write text into a field, preceded by an entry of its own if it does not fit. */
static void write_text(char *field, const char *text, char long_type)
{
    word size = length(text);
    memcpy(field, text, size < 100 ? size : 100);
    if (size <= 100)
        return;
    struct header header = {.name = "././@LongLink", .type = long_type};
    write_number(header.size, sizeof header.size, size + 1);
    send_header(&header);
    send_piece(text, size + 1);
    pad(size + 1);
}

static void send_entry(char type, const struct statx *found, const char *target)
{
    struct header header = {.type = type};
    write_text(header.name, name, GNU_LONG_NAME);
    write_text(header.target, target, GNU_LONG_TARGET);
    write_number(header.mode, sizeof header.mode, found->stx_mode & 07777);
    write_number(header.uid, sizeof header.uid, found->stx_uid);
    write_number(header.gid, sizeof header.gid, found->stx_gid);
    write_number(header.size, sizeof header.size, type == FILE_ENTRY ? found->stx_size : 0);
    write_number(header.mtime, sizeof header.mtime, found->stx_mtime.tv_sec < 0 ? 0 : found->stx_mtime.tv_sec);
    write_number(header.major, sizeof header.major, found->stx_rdev_major);
    write_number(header.minor, sizeof header.minor, found->stx_rdev_minor);
    send_header(&header);
}

/* -- entries ------------------------------------------------------------------------------------------------------------------ */

static long send_regular(long directory, const char *of)
{
    struct statx found;
    long file = call(__NR_openat, directory, (long)of, OPEN_FILE, 0, 0);
    if (file < 0)
        return file;
    long error = look(file, "", &found);
    if (!error && S_ISREG(found.stx_mode)) {
        send_entry(FILE_ENTRY, &found, "");
        send_file(file, found.stx_size);
        pad(found.stx_size);
    }
    close_file(file);
    return error;
}

static long send_link(long directory, const char *of, const struct statx *found)
{
    static char target[PATH_BYTES];
    long size = call(__NR_readlinkat, directory, (long)of, (long)target, sizeof target - 1, 0);
    if (size < 0)
        return size;
    target[size] = 0;
    send_entry(LINK_ENTRY, found, target);
    return 0;
}

/* Send what is at a name, but nothing for a socket. A directory's listing is opened at that depth. */
static long send_found(long directory, const char *of, const struct statx *found, int depth)
{
    unsigned kind = found->stx_mode & S_IFMT;
    if (kind == S_IFREG)
        return send_regular(directory, of);
    if (kind == S_IFLNK)
        return send_link(directory, of, found);
    if (kind != S_IFDIR) {
        if (kind != S_IFSOCK)
            send_entry(kind == S_IFIFO ? PIPE_ENTRY : kind == S_IFBLK ? BLOCK_ENTRY : CHARACTER_ENTRY, found, "");
        return 0;
    }
    if (depth == MAX_DEPTH)
        return -ELOOP;
    struct listing *listing = &listings[depth];
    listing->directory = call(__NR_openat, directory, (long)(*of ? of : "."), OPEN_DIRECTORY, 0, 0);
    if (listing->directory < 0)
        return listing->directory;
    listing->begin = listing->end = 0;
    listing->name_end = length(name);
    *append(name + listing->name_end, "/") = 0;
    name[listing->name_end + 1] = 0;
    send_entry(DIRECTORY_ENTRY, found, "");
    return 0;
}

/* The next entry of a listing: 1, 0 at its end, or an error. */
static long next_name(struct listing *listing, const char **found)
{
    for (;;) {
        if (listing->begin == listing->end) {
            listing->begin = 0;
            listing->end = call(__NR_getdents64, listing->directory, (long)listing->entries, LIST_BYTES, 0, 0);
            if (listing->end <= 0)
                return listing->end;
        }
        struct directory_entry *entry = (void *)(listing->entries + listing->begin);
        listing->begin += entry->size;
        *found = entry->name;
        if (!equal(entry->name, ".") && !equal(entry->name, ".."))
            return 1;
    }
}

/* Send what the listings contain, those of the directories in them included. What is removed meanwhile is left out. */
static long send_listings(void)
{
    for (int depth = 0; depth >= 0;) {
        struct listing *listing = &listings[depth];
        const char *of;
        struct statx found;
        long more = next_name(listing, &of);
        if (more < 0)
            return more;
        if (!more) {
            close_file(listing->directory);
            depth--;
            continue;
        }
        if (listing->name_end + 1 + length(of) >= PATH_BYTES)
            return -ENAMETOOLONG;
        char *end = append(append(name + listing->name_end, "/"), of);
        *end = 0;
        long error = look(listing->directory, of, &found);
        int is_directory = !error && S_ISDIR(found.stx_mode);
        if (!error)
            error = send_found(listing->directory, of, &found, depth + 1);
        if (error && error != -ENOENT)
            return error;
        if (is_directory && !error)
            depth++;
    }
    return 0;
}

void send_archive(const struct tokens *tokens, const char *path)
{
    struct place place;
    struct statx found;
    const char *link, *last = path;
    long error = find_place(path, 0, &place, &link);
    if (!error)
        error = look(place.directory, place.name, &found);
    if (error) {
        send_answer(tokens, failure(error), "");
        return;
    }
    for (const char *at = path; *at; at++)
        if (at[0] == '/' && at[1])
            last = at + 1;
    *append(name, last) = 0;
    begin_body(tokens);
    error = send_found(place.directory, place.name, &found, 0);
    if (!error && S_ISDIR(found.stx_mode))
        error = send_listings();
    if (error)
        leave(1); /* which breaks the archive off */
    static const char end[2 * BLOCK];
    send_piece(end, sizeof end);
    end_body();
}
