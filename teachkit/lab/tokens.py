"""How text becomes tokens and tokens text: a token for each character, or byte pairs that were merged.

Byte pairs: every byte is a token at first, and of two neighbours that stand in the list of merges those
that stand first in it become one, until no neighbours do. Words, with the space before them, are merged
each by itself, so a word is looked up once.

Source: Sennrich, Haddow & Birch, ACL 2016; Radford et al. 2019 (bytes).
"""

import re
from collections.abc import Callable, Iterable, Sequence
from functools import lru_cache
from itertools import pairwise
from typing import NamedTuple

import torch
from torch import Tensor, nn

from teachkit.core import door

WORDS = re.compile(  # GPT-2's words, and each digit by itself
    r"'s|'t|'re|'ve|'m|'ll|'d|\d| ?[^\W\d_]+| ?(?:[^\s\w]|_)+|\s+(?![^\s\d])|\s+"
)


class Language(NamedTuple):
    """A model, and how text becomes its tokens and tokens become text."""

    model: nn.Module
    encode: Callable[[str], Tensor]
    decode: Callable[[Sequence[int]], str]


class Characters:
    """A token for each character that occurs in a text, in the order of the alphabet.

    >>> letters = Characters("banana")
    >>> letters.encode("nab"), letters.decode([0, 2])
    (tensor([2, 0, 1]), 'an')
    """

    def __init__(self, text: str) -> None:
        self.known = sorted(set(text))
        self._number = {letter: i for i, letter in enumerate(self.known)}

    def encode(self, text: str) -> Tensor:
        """The tokens of a text, (n,); a character that is not known is refused."""
        odd = sorted(set(text) - set(self.known))
        if odd:
            raise ValueError(
                f"text has the character {odd[0]!r}; known are {''.join(self.known)!r}"
            )
        return torch.tensor([self._number[c] for c in text], dtype=torch.int64, device="cpu")

    def decode(self, tokens: Iterable[int]) -> str:
        """The text of tokens."""
        return "".join(self.known[int(each)] for each in tokens)


def letters() -> dict[int, str]:
    """A visible letter for each byte, by which the tokens of byte pairs are written down.

    >>> letters()[65], letters()[32]
    ('A', 'Ġ')
    """
    plain = [*range(33, 127), *range(161, 173), *range(174, 256)]
    others = [byte for byte in range(256) if byte not in plain]
    hidden = {byte: chr(256 + i) for i, byte in enumerate(others)}
    return {byte: chr(byte) for byte in plain} | hidden


class BytePairs:
    """Tokens by merged pairs of bytes; ``known`` are all tokens, ``merges`` pairs such as "t h", first first.

    >>> pairs = BytePairs(["a", "b", "ab"], ["a b"])
    >>> pairs.encode("abba"), pairs.decode([2, 1])
    (tensor([2, 1, 0]), 'abb')
    """

    def __init__(self, known: Sequence[str], merges: Sequence[str]) -> None:
        self.known, self._letters = list(known), letters()
        self._bytes = {letter: byte for byte, letter in self._letters.items()}
        self._number = {token: i for i, token in enumerate(self.known)}
        self._rank = {tuple(pair.split(" ")): i for i, pair in enumerate(merges)}
        self._word = lru_cache(1 << 16)(self._merged)

    def encode(self, text: str) -> Tensor:
        """The tokens of a text, (n,)."""
        found = [token for word in WORDS.findall(text) for token in self._word(word)]
        return torch.tensor(found, dtype=torch.int64, device="cpu")

    def decode(self, tokens: Iterable[int]) -> str:
        """The text of tokens; bytes that are no text become the sign for that."""
        written = "".join(self.known[int(token)] for token in tokens)
        return bytes(self._bytes[letter] for letter in written).decode("utf-8", "replace")

    def _merged(self, word: str) -> tuple[int, ...]:
        parts = [self._letters[byte] for byte in word.encode()]
        while len(parts) > 1:
            ranks = [self._rank.get(pair, len(self._rank)) for pair in pairwise(parts)]
            best = min(ranks)
            if best == len(self._rank):
                break
            i = ranks.index(best)
            parts[i : i + 2] = [parts[i] + parts[i + 1]]
        odd = [part for part in parts if part not in self._number]
        if odd:
            raise ValueError(f"text has {word!r}, of which {odd[0]!r} is no token")
        return tuple(self._number[part] for part in parts)


door.hold(globals())
