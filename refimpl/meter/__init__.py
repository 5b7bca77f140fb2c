"""Observers outside the virtual machine: what happened to a guest, read from what it left outside itself.

Most read what a process of their own (`program`) wrote down in the network namespace where it happens: `receiver`,
`stream` and `arp` in the guest's network, `switch` and `wire` at the switch. `samples` is the form in which they write.

Each observer gives a `Verdict` or a figure of its own, and says so when it could not measure. Three figures that are
never mixed: `blackout` (no virtual CPU runs), `outside gap` (what a listener in the guest's network saw), and the
heartbeat's own period and spread, which stand beside the gap. `lines` documents and parses what the guest writes.
"""
