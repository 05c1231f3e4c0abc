"""Encrypts what other keys have encrypted with the first of ENCRYPTION_KEYS, while the service runs (ADR 31).

How far it got is not stored anywhere: a ciphertext says which key it has, so a second run passes over what the first one has
done, and a run that is killed loses at most the work of one short transaction. Rows are locked before their secrets are read, and
several at a time only if no other transaction has locked them: so no change is lost, and there is no deadlock.
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Final

from django.apps import apps
from django.db import connection
from django.db.models import Model

from orchestrator_site.base.db.encryption import MARK_LENGTH, EncryptedTextField, Unreadable, current_keys
from orchestrator_site.base.db.postgresql import cursor_for_large_values
from orchestrator_site.base.db.statements import placeholders, sql, update_text
from orchestrator_site.base.db.transactions import one_connection, short_read, short_transaction

_PAGE_ROWS: Final = 1000  # that one statement looks at
_BATCH_ROWS: Final = 100  # that one transaction changes ...
_BATCH_CHARACTERS: Final = 1 << 20  # ... unless they have more than this, which takes some 20 ms

_LENGTH: Final = {"postgresql": "OCTET_LENGTH", "sqlite": "LENGTH"}  # PostgreSQL's knows it without reading a large value


@dataclass(slots=True)
class Progress:
    """What has been done to one table so far."""

    table: str
    rows: int = 0  # that were looked at
    changed: int = 0  # that had a secret of another key
    unreadable: int = 0  # that have a secret which no key decrypts


@dataclass(frozen=True, slots=True)
class UnreadableRow:
    """A row with secrets that none of the keys decrypts."""

    table: str
    key: Any
    fields: tuple[str, ...]

    def __str__(self) -> str:
        return f"{self.table} {self.key}: {', '.join(self.fields)}"


@dataclass(slots=True)
class _Batch:
    """What became of some rows."""

    found: set[Any] = field(default_factory=set)
    changed: int = 0
    unreadable: list[UnreadableRow] = field(default_factory=list)


class SecretTable:
    """A table with encrypted columns."""

    def __init__(self, model: type[Model]) -> None:
        quote = connection.ops.quote_name
        self.name = model._meta.db_table
        fields = [item for item in model._meta.concrete_fields if isinstance(item, EncryptedTextField)]
        self._model, self._fields = model, tuple(item.name for item in fields)
        self._columns = [quote(str(item.column)) for item in fields]
        self._key, self._table = quote(str(model._meta.pk.column)), quote(self.name)
        self._select = f"SELECT {', '.join([self._key, *self._columns])} FROM {self._table}"  # noqa: S608 - names of columns

    def rotate(self, progress: Callable[[Progress], None], unreadable: Callable[[UnreadableRow], None]) -> Progress:
        """Encrypt the secrets of all rows with the first key, except those that no key decrypts."""
        done = Progress(self.name)
        for rows, outdated in self._pages():
            for keys in _batches(outdated):
                batches = [self._encrypt_again(keys, skip_locked=True)]
                # Others have a lock of the rest, or have deleted it. One at a time: to wait for a lock while holding others could
                # end in a deadlock.
                batches += [self._encrypt_again([key]) for key in keys if key not in batches[0].found]
                for batch in batches:
                    done.changed += batch.changed
                    done.unreadable += len(batch.unreadable)
                    for row in batch.unreadable:
                        unreadable(row)
                progress(done)
            done.rows += rows
            progress(done)
        return done

    def unreadable_ends(self) -> list[UnreadableRow]:
        """Return the oldest and the newest row, each if no key decrypts one of its secrets."""
        ends = [f"SELECT * FROM ({self._select} ORDER BY {self._key} {order} LIMIT 1) AS one" for order in ("ASC", "DESC")]  # noqa: S608 - of our own names
        examined = {key: self._encrypted(key, values)[1] for key, *values in _fetch(" UNION ALL ".join(ends), [])}
        return [row for row in examined.values() if row is not None]

    def _pages(self) -> Iterator[tuple[int, dict[Any, int]]]:
        """Yield how many rows a page has, and which of them have secrets of other keys, with the length of these."""
        outdated = f"CASE WHEN SUBSTR({{0}}, 1, {MARK_LENGTH}) <> %s THEN 1 + {_LENGTH[connection.vendor]}({{0}}) ELSE 0 END"
        length = " + ".join(outdated.format(column) for column in self._columns)
        marks = [current_keys().mark] * len(self._columns)
        last: list[Any] = []
        while True:
            after = f"WHERE {self._key} > %s" if last else ""
            statement = f"SELECT {self._key}, {length} FROM {self._table} {after} ORDER BY {self._key} LIMIT {_PAGE_ROWS}"  # noqa: S608 - of our own names
            page = _fetch(statement, [*marks, *last])
            yield len(page), {key: characters for key, characters in page if characters}
            if len(page) < _PAGE_ROWS:
                return
            last = [page[-1][0]]

    def _encrypt_again(self, keys: Sequence[Any], *, skip_locked: bool = False) -> _Batch:
        lock = sql("{skip_locked}" if skip_locked else "{lock}")
        batch = _Batch()
        changed: list[Any] = []
        with short_transaction(), cursor_for_large_values(connection) as cursor:
            cursor.execute(f"{self._select} WHERE {self._key} IN ({placeholders(keys)}) {lock}", keys)
            for key, *values in cursor.fetchall():
                encrypted, unreadable = self._encrypted(key, values)
                batch.found.add(key)
                batch.unreadable += [unreadable] if unreadable else []
                if encrypted != values:
                    changed += [key, *encrypted]
                    batch.changed += 1
            if changed:
                cursor.execute(update_text(self._model, self._fields, batch.changed), changed)
        return batch

    def _encrypted(self, key: Any, values: Sequence[str | None]) -> tuple[list[str | None], UnreadableRow | None]:
        """Return the secrets of a row, encrypted with the first key, and which of them no key decrypts: these are as before."""
        keys, encrypted, failed = current_keys(), list(values), []
        for index, value in enumerate(values):
            if value is not None and not value.startswith(keys.mark):
                try:
                    encrypted[index] = str(keys.encrypt(keys.decrypt(value)))
                except Unreadable:
                    failed.append(self._fields[index])
        return encrypted, UnreadableRow(self.name, key, tuple(failed)) if failed else None


def tables() -> list[SecretTable]:
    """Return all tables with encrypted columns."""
    found = [model for model in apps.get_models() if any(isinstance(item, EncryptedTextField) for item in model._meta.fields)]
    return [SecretTable(model) for model in found]


def rotate(
    progress: Callable[[Progress], None] = lambda _: None, unreadable: Callable[[UnreadableRow], None] = lambda _: None
) -> list[Progress]:
    """Encrypt all secrets with the first key, and return what was done to each table. It may be ended at any time and repeated.

    A process with another first key goes on using that one meanwhile, so a second rotation may find something as well.
    """
    with one_connection():
        return [table.rotate(progress, unreadable) for table in tables()]


def unreadable_ends() -> list[UnreadableRow]:
    """Return those of the oldest and newest rows that have a secret which no key decrypts.

    This reads few rows and yet shows that a key is missing: the oldest rows have the oldest key, and the newest rows that of the
    other processes.
    """
    with one_connection():
        return [row for table in tables() for row in table.unreadable_ends()]


def _batches(lengths: Mapping[Any, int]) -> Iterator[list[Any]]:
    """Divide rows, of which the length is given, into what one transaction changes."""
    batch: list[Any] = []
    characters = 0
    for key, length in lengths.items():
        if batch and (len(batch) >= _BATCH_ROWS or characters + length > _BATCH_CHARACTERS):
            yield batch
            batch, characters = [], 0
        batch.append(key)
        characters += length
    if batch:
        yield batch


def _fetch(statement: str, parameters: Sequence[Any]) -> list[Any]:
    with short_read(), connection.cursor() as cursor:
        cursor.execute(statement, parameters)
        return list(cursor.fetchall())
