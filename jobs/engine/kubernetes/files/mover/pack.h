/* Sends a file or directory of the workspace as a tar archive. */

#pragma once

#include "http.h"

void send_archive(const struct tokens *tokens, const char *path);
