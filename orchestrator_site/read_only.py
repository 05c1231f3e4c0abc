"""For admin classes of rows that change by what happens, not by hand."""

from typing import Any


class ReadOnly:
    """Staff with the right to view may look; nobody may add, change or delete."""

    def has_add_permission(self, *_: Any) -> bool:
        return False

    def has_change_permission(self, *_: Any) -> bool:
        return False

    def has_delete_permission(self, *_: Any) -> bool:
        return False
