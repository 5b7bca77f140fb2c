"""Frozen value types that every other part shares: standard library only, no I/O."""
