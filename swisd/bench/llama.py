"""llama.cpp as the peer to measure against, through the package `xllamacpp`, on the same GGUF file."""

import importlib.util
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from swisd.bench.figures import Stream
from swisd.core.errors import ModelError

HOW_TO_INSTALL = "llama.cpp is not measured: `pip install xllamacpp` installs it"


def available() -> bool:
    """Whether llama.cpp is installed here."""
    return importlib.util.find_spec("xllamacpp") is not None


class LlamaCpp:
    """llama.cpp in this process, with `threads` threads and a context of 2048 tokens. Raises `ModelError`."""

    context = 2048

    def __init__(self, gguf: Path, threads: int) -> None:
        import xllamacpp

        params = xllamacpp.CommonParams()
        params.model.path = str(gguf)
        params.n_ctx, params.n_parallel, params.n_gpu_layers = self.context, 1, 0
        params.cpuparams.n_threads = params.cpuparams_batch.n_threads = threads
        params.warmup = False
        params.verbosity = -1
        try:
            self._server: Any = xllamacpp.Server(params)
        except RuntimeError as error:
            raise ModelError(f"llama.cpp cannot load {gguf}: {error}") from None

    def answer(self, prompt: Sequence[int], tokens: int) -> Stream:
        """A greedy answer of exactly so many tokens, by llama.cpp's own timings. Raises `ModelError`."""
        request = {
            "prompt": list(prompt),
            "n_predict": tokens,
            "temperature": 0,
            "cache_prompt": False,
            "ignore_eos": True,
        }
        answer = self._server.handle_completions(request)
        try:
            timings = answer["timings"]
            prompt_ms, speed = float(timings["prompt_ms"]), float(timings["predicted_per_second"])
        except (KeyError, TypeError, ValueError):
            raise ModelError(f"llama.cpp gave no timings: {str(answer)[:200]}") from None
        ended = prompt_ms / 1000.0 + ((tokens - 1) / speed if speed > 0 else 0.0)
        return Stream(len(prompt), prompt_ms, prompt_ms, (), tokens, 0.0, ended)
