#include "unpack.h"

#include "paths.h"
#include "tar.h"

#define PAX_BYTES (16 * 1024)
#define FILE_BYTES (256 * 1024)
#define MISSING (O_WRONLY | O_CREAT | O_EXCL | O_NOFOLLOW | O_CLOEXEC)

static const struct answer done = {200, ""};
static const struct answer invalid = {400, "it is not a complete tar archive"};
static const struct answer unsupported = {409, "it contains something else than files, directories and symbolic links"};

struct entry {
    char type;
    word mode, uid, gid, size;
    char name[PATH_BYTES];
    char target[PATH_BYTES];
};

/* -- reading ---------------------------------------------------------------------------------------------------------------- */

/* Copy text of limited length; 0 if it does not fit. */
static int copy(char *to, const char *text, word size)
{
    if (size >= PATH_BYTES)
        return 0;
    memcpy(to, text, size);
    to[size] = 0;
    return 1;
}

/* Read a number: octal digits, or for large ones binary with the first bit set. 0 if it is invalid. */
static int read_number(const char *field, int size, word *number)
{
    const char *end = field + size;
    if (*field & 0x80) {
        *number = *field++ & 0x7f;
        for (; field < end; field++) {
            if (*number >> 54)
                return 0;
            *number = *number << 8 | (unsigned char)*field;
        }
        return 1;
    }
    while (field < end && *field == ' ')
        field++;
    const char *stop = parse_number(field, end, 8, number);
    if (!stop) /* an empty field is 0 */
        return field == end || *field == 0;
    return stop == end || *stop == 0 || *stop == ' ';
}

static word field_size(const char *field, word limit)
{
    word size = 0;
    while (size < limit && field[size])
        size++;
    return size;
}

static int read_header(const struct header *header, struct entry *entry)
{
    word checksum;
    char *at = entry->name;
    if (!read_number(header->checksum, sizeof header->checksum, &checksum) || checksum != sum_of(header))
        return 0;
    entry->type = header->type ? header->type : FILE_ENTRY;
    word prefix = memcmp(header->magic, "ustar", 6) == 0 ? field_size(header->prefix, sizeof header->prefix) : 0;
    memcpy(at, header->prefix, prefix);
    at += prefix;
    if (prefix)
        *at++ = '/';
    copy(at, header->name, field_size(header->name, sizeof header->name));
    copy(entry->target, header->target, field_size(header->target, sizeof header->target));
    return read_number(header->mode, sizeof header->mode, &entry->mode) && read_number(header->uid, sizeof header->uid, &entry->uid) &&
           read_number(header->gid, sizeof header->gid, &entry->gid) && read_number(header->size, sizeof header->size, &entry->size);
}

/* One record of a pax header: 0 if it is invalid. */
static int apply_record(struct entry *entry, const char *key, const char *value, const char *end)
{
    word key_size = value - 1 - key, size = end - value;
    struct {
        const char *name;
        word *number;
        char *text;
    } known[] = {
        {"path", 0, entry->name},    {"linkpath", 0, entry->target}, {"size", &entry->size, 0},
        {"uid", &entry->uid, 0}, {"gid", &entry->gid, 0},
    };
    if (key_size > 10 && memcmp(key, "GNU.sparse", 10) == 0)
        return 0;
    for (word i = 0; i < sizeof known / sizeof *known; i++) {
        if (key_size != length(known[i].name) || memcmp(key, known[i].name, key_size) != 0)
            continue;
        return known[i].text ? copy(known[i].text, value, size) : parse_number(value, end, 10, known[i].number) == end;
    }
    return 1;
}

static int apply_pax(struct entry *entry, const char *record, word size)
{
    const char *end = record + size;
    while (record < end) {
        word record_size;
        const char *key = parse_number(record, end, 10, &record_size);
        if (!key || *key != ' ' || record_size > (word)(end - record) || record + record_size < key + 2)
            return 0;
        const char *stop = record + record_size - 1; /* at its line feed */
        const char *value = ++key;
        while (value < stop && *value != '=')
            value++;
        if (value == stop || *stop != '\n' || !apply_record(entry, key, value + 1, stop))
            return 0;
        record = stop + 1;
    }
    return 1;
}

/* Skip what fills the last block of that many bytes. */
static int skip_padding(word size)
{
    char padding[BLOCK];
    word rest = -size % BLOCK;
    return receive_all(padding, rest) == (long)rest;
}

/* Read the next entry, with the pax header that may precede it: 1, 0 at the archive's end, -1 if it is invalid. */
static int next_entry(struct entry *entry)
{
    static char pax[PAX_BYTES];
    word pax_size = 0;
    for (;;) {
        struct header header;
        long got = receive_all((char *)&header, BLOCK);
        if (got <= 0)
            return got < 0 || pax_size ? -1 : 0;
        if (!header.name[0] && sum_of(&header) == 8 * ' ') /* zeros */
            return 0;
        if (!read_header(&header, entry))
            return -1;
        if (entry->type != PAX_ENTRY && entry->type != PAX_GLOBAL)
            return apply_pax(entry, pax, pax_size) ? 1 : -1;
        if (entry->size > PAX_BYTES || receive_all(pax, entry->size) != (long)entry->size || !skip_padding(entry->size))
            return -1;
        pax_size = entry->type == PAX_ENTRY ? entry->size : 0;
    }
}

/* -- writing ----------------------------------------------------------------------------------------------------------------- */

/* Give a file its owner and mode, in this order, since a change of the owner takes special bits away. */
static long own(long file, const struct entry *entry)
{
    long error = call(__NR_fchown, file, entry->uid, entry->gid, 0, 0);
    if (error < 0 && (error != -EPERM || call(__NR_geteuid, 0, 0, 0, 0, 0) == 0))
        return error; /* as another user than root, all files are its own, as the job's are */
    error = call(__NR_fchmod, file, entry->mode & 07777, 0, 0, 0);
    return error == -EPERM && call(__NR_geteuid, 0, 0, 0, 0, 0) != 0 ? 0 : error;
}

static struct answer write_file(const struct place *place, const struct entry *entry)
{
    long error = call(__NR_unlinkat, place->directory, (long)place->name, 0, 0, 0);
    if (error < 0 && error != -ENOENT)
        return failure(error);
    long file = call(__NR_openat, place->directory, (long)place->name, MISSING, 0600, 0);
    if (file < 0)
        return failure(file);
    error = 0;
    for (word left = entry->size; left && !error;) {
        char *data;
        long got = receive(&data, left < FILE_BYTES ? left : FILE_BYTES);
        if (got <= 0) {
            close_file(file);
            return invalid;
        }
        error = write_all(file, data, got);
        left -= got;
    }
    if (!error)
        error = own(file, entry);
    close_file(file);
    if (error < 0)
        return failure(error);
    return skip_padding(entry->size) ? done : invalid;
}

static struct answer make_directory(const struct place *place, const struct entry *entry)
{
    const char *name = place->name[0] ? place->name : ".";
    long error = call(__NR_mkdirat, place->directory, (long)name, 0700, 0, 0);
    if (error < 0 && error != -EEXIST)
        return failure(error);
    long made = call(__NR_openat, place->directory, (long)name, O_RDONLY | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC, 0, 0);
    if (made < 0)
        return failure(made == -ENOTDIR || made == -ELOOP ? -EEXIST : made);
    error = own(made, entry);
    close_file(made);
    return error < 0 ? failure(error) : done;
}

static struct answer make_link(const struct place *place, const struct entry *entry)
{
    long error = call(__NR_unlinkat, place->directory, (long)place->name, 0, 0, 0);
    if (error < 0 && error != -ENOENT)
        return failure(error);
    error = call(__NR_symlinkat, (long)entry->target, place->directory, (long)place->name, 0, 0);
    if (error < 0)
        return failure(error);
    call(__NR_fchownat, place->directory, (long)place->name, entry->uid, entry->gid, AT_SYMLINK_NOFOLLOW);
    return done;
}

static struct answer write_entry(const char *directory, const struct entry *entry)
{
    static char path[2 * PATH_BYTES];
    struct place place;
    const char *link;
    struct answer answer = unsupported;
    char *end = equal(directory, "/") ? path : append(path, directory);
    *append(append(end, "/"), entry->name) = 0;
    long error = find_place(path, 1, &place, &link);
    if (error == -ENOTDIR)
        error = -EEXIST;
    if (error < 0)
        return failure(error);
    if (entry->type == DIRECTORY_ENTRY)
        answer = make_directory(&place, entry);
    else if (!place.name[0])
        answer = failure(-EISDIR);
    else if (entry->type == FILE_ENTRY)
        answer = write_file(&place, entry);
    else if (entry->type == LINK_ENTRY)
        answer = make_link(&place, entry);
    close_file(place.directory);
    return answer;
}

struct answer unpack(const char *directory)
{
    static struct entry entry;
    struct answer answer = done;
    int more = 1;
    while (answer.status == 200 && (more = next_entry(&entry)) > 0)
        answer = write_entry(directory, &entry);
    if (more < 0)
        return invalid;
    char *rest;
    long got = 1;
    while (answer.status == 200 && (got = receive(&rest, FILE_BYTES)) > 0)
        ; /* zeros behind the archive */
    return got < 0 ? invalid : answer;
}
