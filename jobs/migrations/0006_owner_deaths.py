from django.db import migrations, models


class Migration(migrations.Migration):
    dependencies = [
        ("jobs", "0005_node_starts"),
    ]

    operations = [
        migrations.AddField(
            model_name="job",
            name="owner_deaths",
            field=models.PositiveSmallIntegerField(
                db_default=0, default=0, help_text="How many owners died in a row while they drove it without progress."
            ),
        ),
    ]
