"""Reference implementation of Hyper-V Live Migration on QEMU virtual machines."""

__version__ = "0.1.0"
