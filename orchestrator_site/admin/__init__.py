"""The admin's pages that belong to no other application. Django imports this package to register them."""

from orchestrator_site.admin import accounts, recent_actions

__all__ = ["accounts", "recent_actions"]
