"""The admin's start page: what needs attention, live counts, and charts of the last hours."""
