"""Draw docs/dashboard.svg, the picture in the README: `python docs/make_dashboard_picture.py`."""

import asyncio
import re
import sys
from datetime import UTC
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT / "tests" / "tui"))

from tui_scenes import NOW, running  # noqa: E402

from swisd.tui.app import Dashboard  # noqa: E402
from swisd.tui.view import SwarmEvent  # noqa: E402


async def picture(events: list[SwarmEvent], width: int = 114, height: int = 34) -> str:
    """The screen after the events, as SVG."""
    times = iter(range(10_000))

    async def nothing() -> None: ...

    app = Dashboard(asyncio.Queue(), nothing, clock=lambda: NOW + next(times) * 3.0, zone=UTC)
    for event in events:
        app.post_event(event)
    async with app.run_test(size=(width, height)) as pilot:
        await app.drawn()
        await pilot.pause()
        return own_fonts(app.export_screenshot(title="swisd up", simplify=True))


def own_fonts(svg: str) -> str:
    """Without the fonts that Textual names on a server: a picture must not call anyone."""
    svg = re.sub(r"@font-face \{.*?\}\s*", "", svg, flags=re.DOTALL)
    return svg.replace("Fira Code, monospace", "ui-monospace, Menlo, Consolas, DejaVu Sans Mono, monospace")


if __name__ == "__main__":
    target = ROOT / "docs" / "dashboard.svg"
    target.write_text(asyncio.run(picture(running())), encoding="utf-8")
    print(f"{target}: {target.stat().st_size // 1000} kB")
