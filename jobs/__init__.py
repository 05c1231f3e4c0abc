"""Jobs: what they are, how their state changes, how they run and how clients see them."""
