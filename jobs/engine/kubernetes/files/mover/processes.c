#include "processes.h"

#define LIST_BYTES 4096

struct process {
    int is_first; /* its parent is outside of the process namespace */
    int has_ended;
};

static struct process read_process(const char *number)
{
    char path[NAME_BYTES], line[1024]; /* "NUMBER (NAME) STATE PARENT ..." */
    *append(append(append(path, "/proc/"), number), "/stat") = 0;
    long file = call(__NR_openat, AT_FDCWD, (long)path, O_RDONLY | O_CLOEXEC, 0, 0);
    long at = call(__NR_read, file, (long)line, sizeof line, 0, 0);
    close_file(file);
    while (at > 0 && line[--at] != ')')
        ;
    if (at <= 0)
        return (struct process){0, 1};
    return (struct process){memcmp(line + at + 3, " 0 ", 3) == 0, line[at + 2] == 'Z' || line[at + 2] == 'X'};
}

word signal_job(int signal, int first_only)
{
    static char entries[LIST_BYTES] __attribute__((aligned(8)));
    word count = 0;
    long got, session = call(__NR_getsid, 0, 0, 0, 0, 0);
    long processes = call(__NR_openat, AT_FDCWD, (long)"/proc", O_RDONLY | O_DIRECTORY | O_CLOEXEC, 0, 0);
    while ((got = call(__NR_getdents64, processes, (long)entries, LIST_BYTES, 0, 0)) > 0)
        for (long at = 0; at < got;) {
            struct directory_entry *entry = (void *)(entries + at);
            word process, name = length(entry->name);
            at += entry->size;
            if (parse_number(entry->name, entry->name + name, 10, &process) != entry->name + name || process == 1)
                continue;
            struct process found = read_process(entry->name);
            if (found.has_ended || (first_only && !found.is_first))
                continue;
            /* No process of the job can enter the mover's session. */
            if (call(__NR_getsid, process, 0, 0, 0, 0) != session && call(__NR_kill, process, signal, 0, 0, 0) == 0)
                count++;
        }
    close_file(processes);
    return count;
}
