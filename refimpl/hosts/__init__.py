"""Reaching hosts: inside a namespace, on this machine, later over SSH."""
