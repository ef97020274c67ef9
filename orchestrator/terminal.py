"""What a guest printed, made harmless for a person's terminal."""

from __future__ import annotations

import re

# Colours and styles pass; everything else that steers a terminal does not.
_STYLE = rb"\x1b\[[0-9;:]*m"
_STEERING = re.compile(
    rb"(" + _STYLE + rb")"
    rb"|\x1b\[[0-?]*[ -/]*[@-~]"  # CSI
    rb"|\x1b[\]PX^_].*?(?:\x07|\x1b\\|$)"  # OSC, DCS, SOS, PM, APC
    rb"|\x1b[ -/]*[0-~]?"  # other escapes
    rb"|[\x00-\x08\x0b\x0c\x0e-\x1a\x1c-\x1f\x7f]"  # controls but tab, newline, return
    rb"|\xc2[\x80-\x9f]"  # C1 controls in UTF-8
)
RESET = "\x1b[0m"


def styled(data: bytes) -> str:
    """Log bytes as text for a terminal: colours stay, other control sequences go."""
    harmless = _STEERING.sub(lambda match: match.group(1) or b"", data)
    return harmless.decode("utf-8", "replace")


def plain(text: str) -> str:
    """Text on one line without any control character, for messages."""
    data = re.sub(_STYLE, b"", text.encode("utf-8", "replace"))
    shown = styled(data).replace("\n", " ").replace("\r", " ")
    return "".join(
        char if char.isprintable() or char == " " else "\N{REPLACEMENT CHARACTER}" for char in shown
    )
