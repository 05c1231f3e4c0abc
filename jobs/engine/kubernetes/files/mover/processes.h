/* The processes of the job, which are in the same process namespace. */

#pragma once

#include "system.h"

/*
 * Send a signal to all processes of the pod but PID 1 and the mover's own. With `first_only` send it only to those that a
 * container was started with. Returns to how many.
 */
word signal_job(int signal, int first_only);
