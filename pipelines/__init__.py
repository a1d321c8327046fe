"""The jobs a user runs; the only place where extract, cache and heads meet."""
