"""How far a transfer is, and how that is said to a person."""

from collections.abc import Callable, Iterator
from typing import Literal

from jobs.transfers.sentences import escaped, quoted, size

Stage = Literal["downloading", "copying"]
Progress = Callable[[Stage, int, int | None], object]  # so many bytes of all, where that is known. Called for every chunk


def untold(stage: Stage, done: int, total: int | None) -> None:
    """Tell nobody."""


def counted(chunks: Iterator[bytes], total: int, progress: Progress) -> Iterator[bytes]:
    """The same chunks, their bytes counted as they go into the container."""
    done = 0
    for chunk in chunks:
        yield chunk
        done += len(chunk)
        progress("copying", done, total)


def described(stage: Stage, name: str, path: str, done: int = 0, total: int | None = None) -> str:
    """One sentence, such as `downloading input "data" to data/input.txt: 1.5 GiB of 4 GiB`."""
    sentence = f"{stage} input {quoted(name)} to {escaped(path)}"
    if total is not None:
        return f"{sentence}: {size(done)} of {size(total)}"
    return f"{sentence}: {size(done)}" if done else sentence
