"""VT-x: the VMCS, and what VMLAUNCH and VMRESUME check before a guest may run."""
