"""How far a transfer has got, and the sentence that shows it."""

from collections.abc import Callable, Iterator
from typing import Literal

from jobs.transfers.formatting import escape_path, format_size, quote_path

Stage = Literal["downloading", "copying"]
ProgressCallback = Callable[[Stage, int, int | None], object]  # bytes done, bytes in all if known; called for every chunk


def no_progress(stage: Stage, done: int, total: int | None) -> None:
    """Ignore the progress."""


def report_copying(chunks: Iterator[bytes], total: int, progress: ProgressCallback) -> Iterator[bytes]:
    """Yield `chunks`, and report each to `progress` once it is in the container."""
    done = 0
    for chunk in chunks:
        yield chunk
        done += len(chunk)
        progress("copying", done, total)


def describe_progress(stage: Stage, name: str, path: str, done: int = 0, total: int | None = None) -> str:
    """Return a sentence such as `downloading input "data" to data/input.txt: 1.5 GiB of 4 GiB`."""
    sentence = f"{stage} input {quote_path(name)} to {escape_path(path)}"
    if total is not None:
        return f"{sentence}: {format_size(done)} of {format_size(total)}"
    return f"{sentence}: {format_size(done)}" if done else sentence
