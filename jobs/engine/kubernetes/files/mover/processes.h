/* The processes of the job, which are in the same process namespace. */

#pragma once

#include "system.h"

/* Send a signal to all processes of the pod but the first one and the mover's own. Returns to how many. */
word signal_job(int signal);
