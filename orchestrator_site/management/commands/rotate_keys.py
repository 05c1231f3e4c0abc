"""`manage.py rotate_keys`: encrypts all secrets in the database with the first of ENCRYPTION_KEYS (docs/operations.md)."""

import time
from collections import Counter
from typing import Any, Final

from django.core.management.base import BaseCommand, CommandError, OutputWrapper

from orchestrator_site.base.db import key_rotation
from orchestrator_site.base.db.key_rotation import Progress, UnreadableRow
from orchestrator_site.base.db.transactions import DATABASE_UNAVAILABLE
from orchestrator_site.base.intervals import CommandIntervals

_SHOWN: Final = 20  # unreadable rows of each table
_INTERRUPTED: Final = 130  # the exit code of a program that was ended by SIGINT


class _Display:
    """A line about what is being done: on a terminal it is replaced from time to time, elsewhere there are more lines."""

    def __init__(self, out: OutputWrapper, intervals: CommandIntervals) -> None:
        self._out = out
        self._is_terminal = out.isatty()
        self._period = intervals.display if self._is_terminal else intervals.progress
        self._shown_at = time.monotonic()

    def show(self, progress: Progress) -> None:
        if time.monotonic() - self._shown_at >= self._period:
            self._shown_at = time.monotonic()
            self._write(f"{_in_words(progress)} …", ending="" if self._is_terminal else "\n")

    def say(self, text: str) -> None:
        self._write(text, ending="\n")

    def _write(self, text: str, ending: str) -> None:
        self._out.write(f"\r\x1b[K{text}" if self._is_terminal else text, ending=ending)
        self._out.flush()


class Command(BaseCommand):
    help = (
        "Encrypt all secrets in the database with the first of ENCRYPTION_KEYS, so that the others can be removed. The service "
        "may run meanwhile. If the command is ended, run it again: it continues. It exits with 0 only if no other key is needed."
    )
    requires_system_checks = ()  # one of them is about rows that are not readable, which this command counts

    def handle(self, *args: Any, **options: Any) -> None:
        display = _Display(self.stdout, CommandIntervals())
        try:
            self._rotate(display)
        except KeyboardInterrupt:
            raise CommandError("Interrupted. Run the command again: it continues.", returncode=_INTERRUPTED) from None
        except DATABASE_UNAVAILABLE as error:
            raise CommandError(f"The database does not answer: {error}. Run the command again: it continues.") from error

    def _rotate(self, display: _Display) -> None:
        shown: Counter[str] = Counter()

        def show_unreadable(row: UnreadableRow) -> None:
            shown[row.table] += 1
            if shown[row.table] <= _SHOWN:
                display.say(f"no key decrypts {row}")

        for progress in key_rotation.rotate(display.show, show_unreadable):
            display.say(_in_words(progress))
        # What the first rotation had passed when a process with another first key added it.
        again = key_rotation.rotate(display.show)
        if added := sum(progress.changed for progress in again):
            raise CommandError(
                f"{added} more rows with another key were added meanwhile, so a process still has another first key, or is "
                "of an earlier release. Restart it with the same ENCRYPTION_KEYS, and run the command again."
            )
        if unreadable := sum(progress.unreadable for progress in again):
            raise CommandError(
                f"{unreadable} rows have secrets that none of ENCRYPTION_KEYS decrypts. If you have the key that is missing, add "
                "it at the end and run the command again. All other secrets are encrypted with the first key."
            )
        display.say(
            "All secrets are encrypted with the first key. The others can be removed from ENCRYPTION_KEYS "
            "once every process has been started with this first key."
        )


def _in_words(progress: Progress) -> str:
    unreadable = f", {progress.unreadable:,} cannot be decrypted" if progress.unreadable else ""
    return f"{progress.table}: {progress.rows:,} rows, {progress.changed:,} encrypted again{unreadable}"
