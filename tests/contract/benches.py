"""The harnesses that run anywhere: simulated (strict and delegated hand-over) and opaque."""

from __future__ import annotations

from refimpl.backends.simulated import SimulatedBackend, World, parse_world
from refimpl.backends.simulated.disks import File
from refimpl.engine.backend import Backend, Post
from refimpl.engine.timeline import VirtualTimeline
from refimpl.model.events import Event
from refimpl.model.request import HandOver, Plan, VmState
from tests.contract.opaque import OpaqueBackend, OpaqueHosts

VM_ID = "11111111-2222-4333-8444-555555555555"


def world(**changes: object) -> World:
    """Return a small world: VM `web` on host a, host b empty. `dirty` is bytes written per second."""
    dirty, state = changes.pop("dirty", 20_000_000), changes.pop("state", "running")
    disks = changes.pop("disks", [{"path": "/shared/web.raw"}])
    vm = {
        "name": "web",
        "id": VM_ID,
        "host": "a",
        "state": state,
        "memory_mib": 256,
        "working_set_mib": 200,
        "dirty_bytes_s": [[0, dirty]],
        "disks": disks,
        "autostart": changes.pop("autostart", False),
    }
    hosts = {h: {"memory_mib": 2048, "networks": {"migration": f"192.0.2.{n}"}} for n, h in enumerate("ab", 1)}
    return World(parse_world({"hosts": hosts, "networks": {"migration": {}}, "vms": [vm], **changes}))


class _Virtual:
    """What both have in common: virtual time. What was posted by a lost backend object is never delivered."""

    source, destination = "a", "b"

    def __init__(self) -> None:
        self.timeline = VirtualTimeline()
        self._backend: Backend | None = None
        self._life = 0

    @property
    def backend(self) -> Backend:
        if self._backend is None:
            self._life += 1
            self._backend = self._make(self._post_of(self._life, self.timeline))
        return self._backend

    def _make(self, post: Post) -> Backend:
        raise AssertionError("each harness makes its own")

    def _post_of(self, life: int, timeline: VirtualTimeline) -> Post:
        return lambda event: timeline.after(0, lambda: event if life == self._life else None)

    def next_event(self) -> Event:
        event = self.timeline.next()
        assert event is not None, "nothing can come any more"
        return event

    def close(self) -> None:
        self.backend.close()


class SimulatedHarness(_Virtual):
    """The simulated backend on a world of its own; `changes` go into the world."""

    can = frozenset({"hold_memory", "host_down", "own_disks", "states"})

    def __init__(self, **changes: object) -> None:
        super().__init__()
        self._changes = changes
        self._world: World | None = None
        self.name = f"simulated ({changes.get('hand_over', HandOver.STRICT)})"

    @property
    def world(self) -> World:
        if self._world is None:
            self._world = world(**self._changes)
        return self._world

    def _make(self, post: Post) -> Backend:
        return SimulatedBackend(self.world, post, self.timeline)

    def plan(self) -> Plan:
        hand_over = self.backend.capabilities().hand_over
        state = VmState(str(self._changes.get("state", VmState.RUNNING)))
        networks = ("192.0.2.2",)
        return Plan("web", VM_ID, "a", "b", networks, hand_over=hand_over, memory_mib=256, vm_state=state)

    def be(self, state: VmState) -> None:
        self._changes |= {"state": str(state)}
        self._world, self._backend = None, None

    def own_disks(self) -> str:
        self._changes |= {"disks": [{"path": "/local/web.raw", "local": True}]}
        self._world, self._backend = None, None
        return "/local"

    def has_file(self, host: str, path: str) -> bool:
        return (host, path) in self.world.disks.files

    def put_file(self, host: str, path: str) -> None:
        self.world.disks.files[host, path] = File(99, 1)

    def hold_memory(self) -> None:
        assert self._world is None or not self._world.transfers, "hold_memory comes first"
        self._world, self._backend = world(**self._changes, dirty=900_000_000), None

    def let_go(self) -> None:
        for transfer in self.world.transfers.values():
            transfer.force()

    def lose_backend(self) -> None:
        self.timeline = VirtualTimeline(self.world.now_ns())
        self._backend = None

    def host_down(self, host: str) -> None:
        self.world.lose_host(host)


class OpaqueHarness(_Virtual):
    """The opaque backend on its own two hosts."""

    can = frozenset({"host_down"})
    name = "opaque"

    def __init__(self) -> None:
        super().__init__()
        self.hosts = OpaqueHosts()

    def _make(self, post: Post) -> Backend:
        return OpaqueBackend(self.hosts, post, self.timeline)

    def plan(self) -> Plan:
        return Plan("web", "11111111", "a", "b", networks=("192.0.2.2",), hand_over=HandOver.OPAQUE, memory_mib=256)

    def be(self, state: VmState) -> None:
        raise AssertionError("only running VMs are moved here")

    def own_disks(self) -> str:
        raise AssertionError("no disks are moved here")

    def has_file(self, host: str, path: str) -> bool:
        raise AssertionError("no disks are moved here")

    def put_file(self, host: str, path: str) -> None:
        raise AssertionError("no disks are moved here")

    def hold_memory(self) -> None:
        raise AssertionError("an opaque job cannot be held")

    def let_go(self) -> None:
        raise AssertionError("an opaque job cannot be held")

    def lose_backend(self) -> None:
        assert isinstance(self.backend, OpaqueBackend)
        self.backend.lost = True
        self._backend = None

    def host_down(self, host: str) -> None:
        self.hosts.down.add(host)
