/* Unpacks the body of a request, a tar archive, into a directory of the workspace. */

#pragma once

#include "http.h"

/* Returns the answer: status 200 if all of it was unpacked. */
struct answer unpack(const char *directory);
