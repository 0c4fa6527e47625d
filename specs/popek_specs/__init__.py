"""Facts as data with sources; this package imports nothing of `popek`."""
