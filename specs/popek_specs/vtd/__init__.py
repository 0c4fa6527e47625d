"""Facts about Intel VT-d."""
