"""Whether this process is stopping, for requests that would otherwise wait too long."""

import threading
from typing import Final

stopping: Final = threading.Event()
