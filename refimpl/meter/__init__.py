"""Observers outside the virtual machine: what happened to a guest, read from what it left outside itself.

Each observer gives a `Verdict` or a figure of its own, and says so when it could not measure. Three figures that are
never mixed: `blackout` (no virtual CPU runs), `outside gap` (what a listener in the guest's network saw), and the
heartbeat's own period and spread, which stand beside the gap. `lines` documents and parses what the guest writes.
"""
