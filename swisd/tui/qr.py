"""A join code as a QR code of half blocks, two modules in one character cell."""

import io

# A phone needs a quiet edge; the standard asks for four modules, two are read well and save lines.
EDGE = 2


def qr_lines(code: str) -> list[str]:
    """Light modules are drawn with blocks, so the text scans as it is on a dark terminal."""
    import segno  # only where a code is shown

    # The lowest error correction gives the smallest picture; a screen has no dirt or creases.
    picture = segno.make(code, error="l", boost_error=False, micro=False)
    out = io.StringIO()
    picture.terminal(out, border=EDGE, compact=True)
    return out.getvalue().splitlines()
