"""Bad input at volume. The tests try a few hundred inputs of each kind, always the same; `bin/fuzz` tries others for minutes."""
