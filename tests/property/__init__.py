"""Properties of the table, and proof that each of its rows is needed."""
