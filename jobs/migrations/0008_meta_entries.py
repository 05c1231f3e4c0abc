"""An index of the members of `meta`, which triggers keep from now on. On SQLite it stays empty."""

from typing import Any

from django.db import migrations, models

TRIGGERS = """
CREATE FUNCTION jobs_add_meta_entries() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    INSERT INTO jobs_metaentry (key, value, uuid)
    SELECT key, value, NEW.uuid FROM jsonb_each_text(NEW.meta);
    RETURN NULL;
END
$$;

CREATE FUNCTION jobs_delete_meta_entries() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    DELETE FROM jobs_metaentry USING jsonb_each_text(OLD.meta) AS member
    WHERE jobs_metaentry.key = member.key AND jobs_metaentry.value = member.value AND jobs_metaentry.uuid = OLD.uuid;
    RETURN NULL;
END
$$;

CREATE TRIGGER jobs_add_meta_entries AFTER INSERT ON jobs_job
    FOR EACH ROW WHEN (NEW.meta <> '{}') EXECUTE FUNCTION jobs_add_meta_entries();
CREATE TRIGGER jobs_delete_meta_entries AFTER DELETE ON jobs_job
    FOR EACH ROW WHEN (OLD.meta <> '{}') EXECUTE FUNCTION jobs_delete_meta_entries();
"""

NO_TRIGGERS = """
DROP TRIGGER jobs_add_meta_entries ON jobs_job;
DROP TRIGGER jobs_delete_meta_entries ON jobs_job;
DROP FUNCTION jobs_add_meta_entries, jobs_delete_meta_entries;
"""


def create_triggers(_apps: Any, schema_editor: Any) -> None:
    if schema_editor.connection.vendor == "postgresql":
        schema_editor.execute(TRIGGERS)


def drop_triggers(_apps: Any, schema_editor: Any) -> None:
    if schema_editor.connection.vendor == "postgresql":
        schema_editor.execute(NO_TRIGGERS)


class Migration(migrations.Migration):
    dependencies = [
        ("jobs", "0007_labels"),
    ]

    operations = [
        migrations.CreateModel(
            name="MetaEntry",
            fields=[
                (
                    "pk",
                    models.CompositePrimaryKey(
                        "key", "value", "uuid", blank=True, editable=False, primary_key=True, serialize=False
                    ),
                ),
                ("key", models.TextField()),
                ("value", models.TextField()),
                ("uuid", models.UUIDField(help_text="Of the job.")),
            ],
        ),
        migrations.RunPython(create_triggers, drop_triggers),
    ]
