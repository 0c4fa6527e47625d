"""Propositions about machines."""
