"""Hosts and this machine: commands and files of a host, processes, namespaces, locks, waiting."""
