"""The one place in which the lab turns an error id and its values into the error that it raises."""

from __future__ import annotations


class LabError(Exception):
    """The lab or its environment is broken or was asked for something that it has not: not a virtual machine's fault.

    `id` names the entry of the error data, `values` fill its text, `text` says it in a sentence.
    """

    def __init__(self, id: str, text: str, **values: str | int) -> None:
        self.id = id
        self.text = text
        self.values = values
        super().__init__(f"{text} [{id}]")
