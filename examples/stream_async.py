"""Print an answer as it is made, with asyncio. Leaving the loop early cancels the session in the swarm.

python examples/stream_async.py "Write a short poem about the sea."
"""

import asyncio
import sys
from contextlib import aclosing

from swisd.client import Answer, AsyncClient, Options, Piece, Status


async def main(prompt: str) -> None:
    """Pieces to standard output, what the swarm is waiting for to standard error."""
    client = AsyncClient()
    async with aclosing(client.stream(prompt, Options(max_tokens=100))) as items:
        async for item in items:
            match item:
                case Piece():
                    print(item.text, end="", flush=True)
                case Status():
                    print(f"[{item.text}]", file=sys.stderr)
                case Answer():
                    print(f"\n[{item.finish_reason} after {item.timings.decode_tokens} tokens]")


if __name__ == "__main__":
    asyncio.run(main(" ".join(sys.argv[1:]) or "Write a short poem about the sea."))
