"""Lines of logs are compressed with LZ4."""

from typing import Any

from django.db import migrations

from orchestrator_site.base.db.compression import compress_with_lz4


def compress(_apps: Any, schema_editor: Any) -> None:
    compress_with_lz4(schema_editor, "jobs_logchunk", "lines")


class Migration(migrations.Migration):
    dependencies = [
        ("jobs", "0010_files_of_jobs"),
    ]

    operations = [
        migrations.RunPython(compress, migrations.RunPython.noop),
    ]
