"""How much is sent of the events that the jobs of a key cause, and what streams are promised that wait for a limit."""

from django.db import migrations, models


class Migration(migrations.Migration):
    dependencies = [
        ("callbacks", "0010_rate_limits"),
    ]

    operations = [
        migrations.AddField(
            model_name="subscription",
            name="client",
            field=models.CharField(
                db_default="",
                default="",
                help_text="A public name of the key towards whose limit they count, too.",
                max_length=64,
            ),
        ),
        migrations.AddField(
            model_name="subscription",
            name="promised",
            field=models.IntegerField(
                db_default=0, default=0, help_text="How many events it may send although its owners are at their limits …"
            ),
        ),
        migrations.AddField(
            model_name="subscription",
            name="promised_at",
            field=models.DateTimeField(help_text="… from then on. They were charged when this was promised.", null=True),
        ),
        migrations.AlterField(
            model_name="owner",
            name="limited_until",
            field=models.DateTimeField(help_text="Until then, all that may be sent was sent or is promised.", null=True),
        ),
        migrations.AlterField(
            model_name="subscription",
            name="owner",
            field=models.CharField(
                db_default="", default="", help_text="Its namespace, towards whose limit its events count.", max_length=128
            ),
        ),
    ]
