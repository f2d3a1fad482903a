"""Several questions at once to a running swarm, each answer printed when it is whole.

    python examples/many_questions.py

The swarm runs as many sessions at a time as its memory for tokens allows; the others wait in line.
"""

import asyncio
import sys

from swisd.client import Answer, AsyncClient, Options, SwisdError

QUESTIONS = (
    "What is the capital of France?",
    "Name three things that a small garden needs.",
    "Explain in two sentences what a computer does.",
)


async def ask(client: AsyncClient, question: str) -> tuple[str, Answer]:
    # Without `alone=False` each question would run the model in this process if no swarm is there.
    return question, await client.ask(question, Options(max_tokens=60, seed=1), alone=False)


async def main() -> int:
    """Returns the exit code."""
    client = AsyncClient()
    tasks = [asyncio.create_task(ask(client, question)) for question in QUESTIONS]
    try:
        for done in asyncio.as_completed(tasks):
            question, answer = await done
            print(f"{question}\n  {answer.text}\n", flush=True)
    except SwisdError as error:
        print(error, file=sys.stderr)
        return error.exit_code
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
    return 0


if __name__ == "__main__":
    sys.exit(asyncio.run(main()))
