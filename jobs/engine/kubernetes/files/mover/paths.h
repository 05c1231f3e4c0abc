/*
 * Paths below the workspace, as they are called inside the job's container. A symbolic link is never followed, wherever it is
 * in a path: the worker resolves links, and a job that exchanges a directory for one meanwhile gains nothing.
 */

#pragma once

#include "system.h"

/* Use the directory that is mounted at `mounted`, and is at `workspace` in the job's container. 0 or an error. */
long open_workspace(const char *mounted, const char *workspace);

/* A directory of the workspace, and a name in it that need not exist; empty for the workspace itself. */
struct place {
    long directory; /* to be closed */
    char name[NAME_BYTES];
};

/*
 * Find the place of an absolute path. With `missing` make the directories that do not exist, for anyone to read. Returns 0 or
 * an error. If a link is in the way, `*link` is set to the end of its path.
 */
long find_place(const char *path, int missing, struct place *place, const char **link);
