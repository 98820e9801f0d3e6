"""A small language model of captions: it counts which word follows which, and says new ones."""

import random
from collections import Counter, defaultdict
from collections.abc import Iterable

Context = tuple[str, ...]
EDGE = "\n"  # begins and ends a caption


class Captions:
    """An n-gram model over words, backing off to shorter contexts (as in Katz 1987, by chance instead of by count)."""

    def __init__(self, lines: Iterable[str], order: int = 3):
        self.order, self.heard = order, set(lines)
        self.after: dict[Context, Counter[str]] = defaultdict(Counter)
        for line in sorted(self.heard):
            words = [EDGE, *line.split(), EDGE]
            for i, word in enumerate(words[1:], 1):
                for n in range(1, min(i, order) + 1):
                    self.after[tuple(words[i - n : i])][word] += 1

    def say(self, rng: random.Random, most: int = 14) -> str:
        """One caption, heard before or not."""
        words = [EDGE]
        while len(words) <= most:
            n = min(len(words), self.order)
            while n > 1 and rng.random() < 0.15:
                n -= 1
            while tuple(words[-n:]) not in self.after:  # a single word that was heard has been followed by something
                n -= 1
            choices = self.after[tuple(words[-n:])]
            word = rng.choices(list(choices), list(choices.values()))[0]
            if word == EDGE:
                break
            words.append(word)
        return " ".join(words[1:])

    def new(self, count: int, seed: int = 0, tries: int = 50) -> list[str]:
        """`count` distinct captions that were not heard, or fewer where they cannot be found."""
        rng, said = random.Random(seed), dict[str, None]()
        for _ in range(tries * count):
            line = self.say(rng)
            if line and line not in self.heard:
                said[line] = None
            if len(said) == count:
                break
        return list(said)
