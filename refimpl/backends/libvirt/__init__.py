"""The backend for QEMU through libvirt. libvirt-python is imported lazily, and nowhere else in the project.

Here libvirt's and QEMU's words are used; what leaves the package are the model's events, facts and problems.
"""
