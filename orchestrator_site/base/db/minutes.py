"""Minutes since 1970, by the database's clock."""

from typing import Any

from django.db.models import Func, IntegerField

from orchestrator_site.base.db.statements import sql


class ThisMinute(Func):
    """The current one, for queries."""

    output_field = IntegerField()

    def as_sql(self, *_: Any, **__: Any) -> tuple[str, tuple[str | int, ...]]:
        return sql("({minute})"), ()
