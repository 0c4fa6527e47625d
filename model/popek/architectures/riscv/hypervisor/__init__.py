"""The hypervisor extension as hardware assistance: controls, ownership, processors, settings of real hypervisors."""
