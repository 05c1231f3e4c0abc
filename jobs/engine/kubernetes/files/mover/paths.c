#include "paths.h"

#define DIRECTORY_FLAGS (O_PATH | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC)

static long root = -1;
static const char *root_path;

long open_workspace(const char *mounted, const char *workspace)
{
    root = call(__NR_openat, AT_FDCWD, (long)mounted, DIRECTORY_FLAGS, 0, 0);
    root_path = workspace;
    return root < 0 ? root : 0;
}

/* The rest of a path below the workspace, or 0 if it is elsewhere. */
static const char *below_root(const char *path)
{
    word size = length(root_path);
    if (length(path) < size || memcmp(path, root_path, size) != 0)
        return 0;
    return path[size] == '/' || path[size] == 0 ? path + size : 0;
}

static long enter(long directory, const char *name, int missing)
{
    long entered = call(__NR_openat, directory, (long)name, DIRECTORY_FLAGS, 0, 0);
    if (entered != -ENOENT || !missing)
        return entered;
    long error = call(__NR_mkdirat, directory, (long)name, 0755, 0, 0);
    if (error < 0 && error != -EEXIST)
        return error;
    return call(__NR_openat, directory, (long)name, DIRECTORY_FLAGS, 0, 0);
}

static int is_link(long directory, const char *name)
{
    struct statx found;
    return look(directory, name, &found) == 0 && S_ISLNK(found.stx_mode);
}

long find_place(const char *path, int missing, struct place *place, const char **link)
{
    const char *at = below_root(path);
    *link = 0;
    place->name[0] = 0;
    if (!at)
        return -ENOENT;
    place->directory = call(__NR_openat, root, (long)".", DIRECTORY_FLAGS, 0, 0);
    while (place->directory >= 0) {
        while (*at == '/')
            at++;
        if (!*at)
            return 0;
        if (place->name[0]) {
            long entered = enter(place->directory, place->name, missing);
            if (entered == -ENOTDIR && is_link(place->directory, place->name))
                *link = at;
            close_file(place->directory);
            place->directory = entered;
        }
        word size = 0;
        while (*at && *at != '/' && size < NAME_BYTES)
            place->name[size++] = *at++;
        if (size == NAME_BYTES || (place->name[0] == '.' && (size == 1 || (size == 2 && place->name[1] == '.')))) {
            close_file(place->directory);
            place->directory = -EINVAL;
        } else {
            place->name[size] = 0;
        }
    }
    return place->directory;
}
