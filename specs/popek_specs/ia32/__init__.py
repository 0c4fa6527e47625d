"""Data about IA-32 emulators."""
