/* Accepts connections, each served by a process of its own. */

#pragma once

#include "system.h"

/*
 * Serve until a connection ends the service: 0, 1 if the port cannot be opened, 143 after a SIGTERM of the node. `serve` serves a connection, calls
 * `is_known` once the peer is known to be the worker, and returns whether the service ends.
 */
int run_server(word port, int (*serve)(long connection, void (*is_known)(void)));
