"""The errors of the lab, so that whoever builds or removes one can tell them from those of a move."""

from __future__ import annotations

from refimpl.model.errors import Problem, RefimplError, Value


class LabError(RefimplError):
    """The lab or its environment is broken or was asked for something that it has not: not a virtual machine's fault.

    `id` names an entry of the error data, `values` fill its text.
    """

    def __init__(self, id: str, **values: Value) -> None:
        self.id = id
        self.values = values
        super().__init__(Problem(id=id, values=values))
