"""Presentation of results: tables and text, no logic."""
