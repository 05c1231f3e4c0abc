"""Whether this process is about to end, for answers that would otherwise wait longer than it lives."""

import threading
from typing import Final

stopping: Final = threading.Event()
