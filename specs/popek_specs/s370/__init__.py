"""Data about System/370 emulators."""
