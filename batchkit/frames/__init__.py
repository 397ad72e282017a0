"""Tables: the home of polars. Import it where a table is really there; it costs a fifth of a second."""
