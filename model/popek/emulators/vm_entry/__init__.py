"""VM entries on Bochs."""
