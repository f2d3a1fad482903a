"""llama.cpp as the peer to measure against, through the package `xllamacpp`, on the same GGUF file."""

import importlib.util
import random
from pathlib import Path
from typing import Any


def available() -> bool:
    """Whether llama.cpp is installed here."""
    return importlib.util.find_spec("xllamacpp") is not None


class LlamaCpp:
    """llama.cpp in this process, with `threads` threads and a context of 2048 tokens."""

    def __init__(self, gguf: Path, threads: int) -> None:
        import xllamacpp

        params = xllamacpp.CommonParams()
        params.model.path = str(gguf)
        params.n_ctx, params.n_parallel, params.n_gpu_layers = 2048, 1, 0
        params.cpuparams.n_threads = params.cpuparams_batch.n_threads = threads
        params.warmup = False
        params.verbosity = -1
        self._server: Any = xllamacpp.Server(params)
        self._random = random.Random(1)

    def measure(self, prompt_tokens: int, tokens: int) -> tuple[float, float]:
        """Milliseconds for a prompt of random tokens, and tokens/s of the greedy decode after it."""
        ids = [self._random.randrange(100, 30000) for _ in range(prompt_tokens)]
        request = {
            "prompt": ids,
            "n_predict": tokens,
            "temperature": 0,
            "cache_prompt": False,
            "ignore_eos": True,
        }
        timings = self._server.handle_completions(request)["timings"]
        return float(timings["prompt_ms"]), float(timings["predicted_per_second"])
