"""A second key and headers of a callback. A release that does not know the columns leaves them null."""

from django.db import migrations

from orchestrator_site.base.db.encryption import EncryptedJSONField, EncryptedTextField


class Migration(migrations.Migration):
    dependencies = [("callbacks", "0004_slow_destinations")]

    operations = [
        migrations.AddField(
            model_name="subscription",
            name="headers",
            field=EncryptedJSONField(help_text="Sent with each event; null if there are none.", null=True),
        ),
        migrations.AddField(
            model_name="subscription",
            name="previous_key",
            field=EncryptedTextField(help_text="Signs them as well while the receiver changes to `key`; else null.", null=True),
        ),
    ]
