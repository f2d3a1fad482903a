r"""Pre-tokenizers: cut a text into the words that byte-level BPE may not merge across.

The patterns are the published ones of GPT-2, SmolLM, Qwen 2 and Llama 3 (`tokenizer.json` of the models;
llama.cpp src/llama-vocab.cpp lists them by the name that GGUF stores as `tokenizer.ggml.pre`). They need
\p{L}, \p{N} and \p{P}, which Python's `re` does not have. So the text is first mapped, character by
character, to an ASCII text of the same length that has one letter per class, the pattern runs over that
image, and the original is cut at the same places. ASCII is its own image, so plain prose costs one pass.
"""

import re
from dataclasses import dataclass
from itertools import pairwise
from unicodedata import category

from swisd.core.errors import ModelError

# \s as Rust's regex, Oniguruma and llama.cpp have it: Unicode White_Space (PropList.txt). Python's own
# str.isspace also takes U+001C to U+001F.
_WHITE_SPACE = frozenset(
    "\x85\xa0\u1680\u2028\u2029\u202f\u205f\u3000" + "".join(map(chr, range(0x2000, 0x200B)))
)


class _Image(dict[int, str]):
    """Code point -> the ASCII character that stands for its class, found when first met.

    'a' is no letter of a contraction, a tab no space that a word may begin with, '.' is punctuation in every
    pattern, and '`' is the one printable ASCII character that the `default` pattern calls neither
    punctuation nor letter nor number.
    """

    def __missing__(self, code: int) -> str:
        if code < 128:
            image = chr(code)
        elif (character := chr(code)) in _WHITE_SPACE:
            image = "\t"
        else:
            image = {"L": "a", "N": "0", "P": "."}.get(category(character)[0], "`")
        if len(self) >= 1 << 16:
            self.clear()
        self[code] = image
        return image


_image = _Image()


@dataclass(frozen=True, slots=True)
class WordSplitter:
    """Patterns that run one after the other, each inside the pieces that the one before left.

    What a pattern does not match stays a piece of its own.
    """

    patterns: tuple[re.Pattern[str], ...]
    whole_words: bool = False  # A word that is a token is that token, whatever the merges would make of it.

    def split(self, text: str) -> list[str]:
        """The words of `text`, in order; joined they are `text` again."""
        image = text if text.isascii() else text.translate(_image)
        cuts = [0, len(text)] if text else [0]
        for pattern in self.patterns:
            finer = [0]
            for start, end in pairwise(cuts):
                # A slice, not pos and endpos: a look-ahead must not see past the piece.
                piece = image[start:end] if len(cuts) > 2 else image
                for match in pattern.finditer(piece):
                    if start + match.start() > finer[-1]:
                        finer.append(start + match.start())
                    if start + match.end() > finer[-1]:
                        finer.append(start + match.end())
                if end > finer[-1]:
                    finer.append(end)
            cuts = finer
        return [text[start:end] for start, end in pairwise(cuts)]


_GPT2 = r"'s|'t|'re|'ve|'m|'ll|'d| ?[A-Za-z]+| ?[0-9]+| ?[^\sA-Za-z0-9]+|\s+(?!\S)|\s+"
_LLAMA3 = (
    r"'(?:[sS]|[tT]|[rR][eE]|[vV][eE]|[mM]|[lL][lL]|[dD])|[^\r\nA-Za-z0-9]?[A-Za-z]+|[0-9]{1,3}"
    r"| ?[^\sA-Za-z0-9]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"
)
_QWEN2 = _LLAMA3.replace("{1,3}", "")
_PUNCTUATION = r"[!-/:-@\[-_{-~]+"
_PATTERNS: dict[str, tuple[str, ...]] = {
    "gpt-2": (_GPT2,),
    "smollm": (r"[0-9]", _GPT2),
    "qwen2": (_QWEN2,),
    "llama-bpe": (_LLAMA3,),
    # What llama.cpp does with a file that names no pre-tokenizer.
    "default": (_PUNCTUATION, _GPT2, r"[0-9]+", r"[0-9][0-9][0-9]"),
}


def word_splitter(pre: str) -> WordSplitter:
    """The splitter that `tokenizer.ggml.pre` names. Raises `ModelError` for a name it does not know."""
    try:
        sources = _PATTERNS[pre]
    except KeyError:
        raise ModelError(
            f"tokenizer: pre-tokenizer {pre!r} is not known; this swisd reads {', '.join(sorted(_PATTERNS))}"
        ) from None
    compiled = tuple(re.compile(source, re.ASCII) for source in sources)
    return WordSplitter(compiled, whole_words=pre == "llama-bpe")
