"""The eight problems of ring deprivileging (Uhlig et al. 2005)."""
