"""QEMU: a guest without an operating system, its remapping unit, and a device that moves storage by itself."""
