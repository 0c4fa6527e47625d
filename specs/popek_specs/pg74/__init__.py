"""The paper's machine."""
