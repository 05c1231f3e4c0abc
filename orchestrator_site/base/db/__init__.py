"""Using the database: short transactions, PostgreSQL's limits, encrypted fields."""
