"""The raw samples of observers, kept as JSON lines so that whoever doubts a verdict can judge anew.

A watched move keeps them in the directory `observed` of its operation::

    observed/verdicts.json      {"schema": 1, "vm", "source", "destination", "verdicts": [what Verdict.to_json gives]}
    observed/NAME.jsonl         the samples of one observer; a verdict names its file in `samples`

The first line of a file is its header, `{"schema": 1, "observer": NAME}` and what the observer was told. Every other
line is one sample: `kind`, `at_ns` (nanoseconds since the epoch by the machine's clock, which is the clock of the
operation's events too; arrival times are the kernel's), and what the kind carries:

| file | kind | carries |
| --- | --- | --- |
| `heartbeat` | `beat` | `boot`, `number`; `overflowed`: datagrams that the observer's own kernel dropped so far |
| `guest` | `line` | `host`, `boot`, `sequence`, `line` (its kind), `fields`: see `refimpl.meter.lines`; `at_ns` is 0 |
| `stream` | `connected`, `ended` | `boot` of the guest; `why` (`reset`, `closed`, or what the system said) |
| `stream` | `record` | `number`, `sent_ns`: a record of 16 bytes came back as it was sent |
| `stream` | `wrong` | `what` (`gap`, `duplicate`, `unreadable`), `number` expected, `count` of records or bytes |
| `switch` | `learned`, `forgotten` | `port`: the switch's forwarding database about the VM's MAC address |
| `switch` | `frame` | `port` that it came in by, `type` (`rarp`, `announcement`, `arp`, `ipv4`, `ipv6`, `other`) |
| `wire` | `count` | `port`, `frames`, `bytes` (TCP payload), `found` (by marker), `dropped` frames: so far |
| `wire` | `found` | `port`, `marker`, `peer` (address of the other end): the first of each marker at a port |
| `arp` | `probe`, `reply` | `number`: of a probe, and of replies so far |
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import IO, Any

SCHEMA_VERSION = 1
DIRECTORY = "observed"
"""The name of the directory, in that of an operation, that holds verdicts and samples."""

Sample = dict[str, Any]


class Samples:
    """Writes the samples of one observer, each at once, so that a reader in another process sees it."""

    def __init__(self, output: IO[str], observer: str, **told: Any) -> None:
        """Write the header; `told` are plain JSON values."""
        self._output = output
        self._write({"schema": SCHEMA_VERSION, "observer": observer, **told})

    def add(self, kind: str, at_ns: int, **values: Any) -> None:
        """Write one sample."""
        self._write({"kind": kind, "at_ns": at_ns, **values})

    def _write(self, values: Sample) -> None:
        self._output.write(json.dumps(values, separators=(",", ":")) + "\n")
        self._output.flush()


def read_samples(path: Path, *kinds: str) -> list[Sample]:
    """Return the samples of these kinds (none: all) in the order of writing; a last line that is not whole is left out.

    A file that is not there yet holds none; ValueError when it is of another schema.
    """
    whole, _, _ = (path.read_text("utf-8") if path.exists() else "").rpartition("\n")
    head, *lines = whole.splitlines() or [""]
    if head and json.loads(head).get("schema") != SCHEMA_VERSION:
        raise ValueError(f"{path} does not hold samples of schema {SCHEMA_VERSION}")
    wanted = [f'{{"kind":"{kind}",' for kind in kinds]
    return [json.loads(line) for line in lines if not kinds or line.startswith(tuple(wanted))]
