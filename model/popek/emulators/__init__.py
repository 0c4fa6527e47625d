"""Emulators as independent oracles: what a machine really does, to compare the model with."""
