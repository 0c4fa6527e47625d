"""VMRUN on Bochs."""
