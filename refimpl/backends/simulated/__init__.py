"""The simulated backend: hosts, VMs and faults in memory under virtual time, replayed to the byte by a seed."""

from refimpl.backends.simulated.backend import SimulatedBackend
from refimpl.backends.simulated.facts import host_settings
from refimpl.backends.simulated.world import World
from refimpl.backends.simulated.worldfile import WorldSpec, default_world, load_world, parse_world

__all__ = ["SimulatedBackend", "World", "WorldSpec", "default_world", "host_settings", "load_world", "parse_world"]
