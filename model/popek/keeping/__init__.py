"""What was found is kept for the next time, by everything that it depends on."""
