"""Adds the jobs that were stored before the triggers to the index of `meta`, while the service runs.

A batch is a transaction, and one that was added before changes nothing, so this can be interrupted and started again.
"""

from typing import Any
from uuid import UUID

from django.db import migrations

BATCH = 5000

# `KEY SHARE`: a job that is deleted meanwhile would leave its entries behind. Other changes to the job do not wait.
ADD_BATCH = """
WITH batch AS (SELECT uuid, meta FROM jobs_job WHERE uuid > %s ORDER BY uuid LIMIT %s FOR KEY SHARE),
     added AS (INSERT INTO jobs_metaentry (key, value, uuid)
               SELECT key, value, uuid FROM batch, jsonb_each_text(meta) ON CONFLICT DO NOTHING)
SELECT max(uuid::text) FROM batch
"""


def add_entries(_apps: Any, schema_editor: Any) -> None:
    if schema_editor.connection.vendor != "postgresql":
        return
    last = str(UUID(int=0))
    with schema_editor.connection.cursor() as cursor:
        while last is not None:
            cursor.execute(ADD_BATCH, [last, BATCH])
            [(last,)] = cursor.fetchall()
        cursor.execute("ANALYZE jobs_metaentry")


class Migration(migrations.Migration):
    atomic = False

    dependencies = [
        ("jobs", "0008_meta_entries"),
    ]

    operations = [
        migrations.RunPython(add_entries, migrations.RunPython.noop),
    ]
