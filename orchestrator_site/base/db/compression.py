"""Chooses how PostgreSQL compresses large values."""

from typing import Any, Final

_SUPPORTS_LZ4: Final = "SELECT 'lz4' = ANY(enumvals) FROM pg_settings WHERE name = 'default_toast_compression'"


def compress_with_lz4(schema_editor: Any, table: str, column: str) -> None:
    """Let PostgreSQL compress new values of this column with LZ4, if it can: from version 14 on, and as it was built.

    The default takes five to eight times the CPU for text (10 ms instead of 2 for 400 KB), to store it in a similar space. Values
    that are stored already stay as they are. Do nothing with another database.
    """
    if schema_editor.connection.vendor != "postgresql":
        return
    with schema_editor.connection.cursor() as cursor:
        cursor.execute(_SUPPORTS_LZ4)
        if cursor.fetchall() == [(True,)]:
            names = map(schema_editor.quote_name, (table, column))
            cursor.execute("ALTER TABLE {} ALTER COLUMN {} SET COMPRESSION lz4".format(*names))
