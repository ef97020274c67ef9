"""The result of one check of this machine."""

from __future__ import annotations

from typing import Literal

import msgspec


class Row(msgspec.Struct, frozen=True):
    """The result of one check; `remedy` is what to type, line by line, if it is not `ok`."""

    state: Literal["ok", "warning", "missing", "damaged"]
    subject: str
    found: str
    remedy: str = ""
