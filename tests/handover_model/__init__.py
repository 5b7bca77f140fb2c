"""Hand-over and recovery as a small state model, checked exhaustively within stated bounds (docs/model.md, ADR 0013).

The engine in it is the one that runs: table, policies, ledger and conductor. Hosts, daemons, messages, leases and what
the backend does for each command are modelled after what was measured (handover 1 and 1.1; libvirt-qemu 3.2 and 3.3).
"""
