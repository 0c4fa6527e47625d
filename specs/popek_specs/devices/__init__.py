"""Claims about machines with devices."""
