"""VT-i: the virtual processor descriptor, its checks, PAL's procedures and services, virtual interrupts."""
