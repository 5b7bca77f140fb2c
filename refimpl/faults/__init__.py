"""What can be done to a migration on purpose: each fault declares what it does and may lead to, and undoes itself."""

from refimpl.faults.catalogue import FAULTS, Fault
from refimpl.faults.inflict import Inflicted, inflicted
from refimpl.faults.target import Place, Target

__all__ = ["FAULTS", "Fault", "Inflicted", "Place", "Target", "inflicted"]
