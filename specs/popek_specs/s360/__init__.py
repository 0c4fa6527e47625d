"""The instruction lists of System/360 and System/370."""
