"""The switch between the hosts: at which of its ports is the VM, who told it, and never two ports at once (R16).

`python -m refimpl.meter.switch --mac M --port LINK... --output FILE`, started by `Program` where the switch is. It
writes down what the switch's forwarding database learns of the VM's MAC address, and every frame that the VM sent, with
the port that it came in by. The time of a frame is the kernel's; that of a change in the database is when this program
heard of it.
"""

from __future__ import annotations

import argparse
import socket
import sys
import time
from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from pathlib import Path

from refimpl.meter.frames import came_in, frame_type, mac_bytes, open_link
from refimpl.meter.neighbours import entries, open_neighbours
from refimpl.meter.program import STOP, arrived_ns, fail, readable, ready
from refimpl.meter.samples import Sample, Samples
from refimpl.meter.verdict import Figure, State, Verdict, not_measured

NAME = "switch"
FILE = "switch"
_BUFFER_BYTES = 4 << 20
_HEAD_BYTES = 128
_DATAGRAM_BYTES = 1 << 16


def switch_verdict(samples: Sequence[Sample], ports: tuple[str, str], stopped_ns: int, ran_ns: int) -> Verdict:
    """Judge where the VM was on the switch; `ports` of source and destination, times of STOP and RESUME.

    Bad: a frame of the VM came in by the destination's port before RESUME, or by the source's port after the first one
    at the destination's; or the switch has the VM elsewhere in the end. Not measured: the VM was not seen at the
    source's port before, or not at the destination's after. Figures, in milliseconds after RESUME: `mac_relearned_ms`,
    `first_frame_ms` at the destination's port; after STOP: `last_frame_ms` at the source's port. `told_by`: the type of
    the first frame at the destination's port, which is what told the switch.
    """
    source, destination = ports
    learned = [s for s in samples if s["kind"] == "learned"]
    here = [s for s in samples if s["kind"] == "frame" and s["port"] == source]
    there = [s for s in samples if s["kind"] == "frame" and s["port"] == destination]
    before = next((s["port"] for s in reversed(learned) if s["at_ns"] < stopped_ns), "no port")
    if before != source:
        return not_measured(NAME, f"before the move the switch had the VM's address at {before}, not at {source}")
    relearned_ns = next((s["at_ns"] for s in learned if s["port"] == destination), None)
    if not there or relearned_ns is None:
        return not_measured(NAME, f"no frame of the VM came in by port {destination}")
    first_ns = there[0]["at_ns"]
    figures: dict[str, Figure] = {
        "mac_relearned_ms": (relearned_ns - ran_ns) / 1e6,
        "told_by": there[0]["type"],
        "first_frame_ms": (first_ns - ran_ns) / 1e6,
        "announcements": sum(s["type"] in ("rarp", "announcement") for s in there),
        "frames_before_resume": sum(s["at_ns"] < ran_ns for s in there),
        "frames_from_both": sum(s["at_ns"] > first_ns for s in here),
    }
    if here:
        figures["last_frame_ms"] = (here[-1]["at_ns"] - stopped_ns) / 1e6
    faults = _faults(figures, learned[-1]["port"], destination)
    if faults:
        return Verdict(NAME, State.BAD, "; ".join(faults), figures)
    text = (
        f"the switch learnt the new port {figures['mac_relearned_ms']:.1f} ms after RESUME, told by "
        f"{_TYPES[there[0]['type']]}; never two ports at once"
    )
    return Verdict(NAME, State.OK, text, figures)


def seen_at(samples: Sequence[Sample], port: str) -> bool:
    """Tell whether the switch has learned the VM's address at a port, by a frame that came in there."""
    kinds = {s["kind"] for s in samples if s.get("port") == port}
    return {"learned", "frame"} <= kinds


def _faults(figures: Mapping[str, Figure], last_port: str, destination: str) -> list[str]:
    faults = []
    if figures["frames_from_both"]:
        faults.append(f"{figures['frames_from_both']} frames by the source's port after the destination's had spoken")
    if figures["frames_before_resume"]:
        faults.append(f"{figures['frames_before_resume']} frames by the destination's port before RESUME")
    if last_port != destination:
        faults.append(f"in the end the switch has the VM's address at {last_port}, not at {destination}")
    return faults


_TYPES = {
    "rarp": "a RARP frame",
    "announcement": "an ARP announcement",
    "arp": "an ARP frame of the VM's",
    "ipv4": "an IPv4 packet of the VM's",
    "ipv6": "an IPv6 packet of the VM's",
    "other": "a frame of the VM's",
}


def watch_switch(sockets: Mapping[str, socket.socket], neighbours: socket.socket, mac: bytes, samples: Samples) -> None:
    """Write down what is learned of an address and what it sends, until this program has to end."""
    ports = {socket.if_nametoindex(name): name for name in sockets}
    by_descriptor = {sock.fileno(): (name, sock) for name, sock in sockets.items()}
    while True:
        found = readable((*by_descriptor, neighbours.fileno(), STOP))
        for descriptor in found:
            if descriptor in by_descriptor:
                _frame(*by_descriptor[descriptor], samples)
        if neighbours.fileno() in found:
            at_ns = time.time_ns()
            for entry in entries(neighbours.recv(_DATAGRAM_BYTES)):
                if entry.mac == mac and entry.link in ports:
                    samples.add("learned" if entry.learned else "forgotten", at_ns, port=ports[entry.link])
        if found == [STOP]:
            return


def _frame(port: str, sock: socket.socket, samples: Samples) -> None:
    frame, control, _, address = sock.recvmsg(_HEAD_BYTES, 256)
    if came_in(address):
        samples.add("frame", arrived_ns(control), port=port, type=frame_type(frame))


def main(arguments: Sequence[str]) -> int:
    """Watch until standard input ends; 1 when a port cannot be watched."""
    parser = argparse.ArgumentParser(prog="refimpl.meter.switch", description="Watch where a VM is on a switch.")
    parser.add_argument("--mac", type=mac_bytes, required=True)
    parser.add_argument("--port", action="append", required=True)
    parser.add_argument("--output", type=Path, required=True)
    options = parser.parse_args(arguments)
    with ExitStack() as open_sockets:
        try:
            ports = {
                name: open_sockets.enter_context(open_link(name, buffer_bytes=_BUFFER_BYTES, source_mac=options.mac))
                for name in options.port
            }
            neighbours = open_sockets.enter_context(open_neighbours())
        except OSError as failure:
            return fail(f"cannot watch the ports {', '.join(options.port)}", failure)
        output = open_sockets.enter_context(options.output.open("a", encoding="utf-8"))
        samples = Samples(output, FILE, mac=options.mac.hex(":"), ports=options.port)
        ready()
        watch_switch(ports, neighbours, options.mac, samples)
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
