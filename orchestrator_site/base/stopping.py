"""An event that is set when this process stops, so that long polls end early."""

import threading
from typing import Final

stopping: Final = threading.Event()
