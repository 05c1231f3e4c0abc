"""How large the body of a request may be: the web server and the reader of bodies share it."""

from typing import Final

MAX_BODY_BYTES: Final = 1024**2
