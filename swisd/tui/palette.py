"""Colours of the devices: the set of Okabe and Ito, told apart by colour-blind people too."""

# (fill, ink on it). A letter always stands beside the colour, so colour is never the only cue.
_COLOURS = (
    ("#56B4E9", "#000000"),
    ("#E69F00", "#000000"),
    ("#009E73", "#000000"),
    ("#CC79A7", "#000000"),
    ("#F0E442", "#000000"),
    ("#D55E00", "#000000"),
    ("#0072B2", "#FFFFFF"),
    ("#A0A0A0", "#000000"),
)
_UNKNOWN = ("#505050", "#FFFFFF")


def fill(slot: int) -> str:
    """Style of text on a device's colour."""
    colour, ink = _COLOURS[slot % len(_COLOURS)] if slot >= 0 else _UNKNOWN
    return f"{ink} on {colour}"
