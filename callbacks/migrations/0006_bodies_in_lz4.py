"""Bodies of events are compressed with LZ4."""

from typing import Any

from django.db import migrations

from orchestrator_site.base.db.compression import compress_with_lz4


def compress(_apps: Any, schema_editor: Any) -> None:
    compress_with_lz4(schema_editor, "callbacks_event", "body")


class Migration(migrations.Migration):
    dependencies = [("callbacks", "0005_callback_keys_and_headers")]

    operations = [
        migrations.RunPython(compress, migrations.RunPython.noop),
    ]
