"""In-context summaries of CNN/DailyMail stories in three disjoint buckets of length (arXiv:2310.01382).

Lengths are counted in words and marks, whatever the tokenizer: one protocol id must mean the same stories for
every model, and tokens of one model's tokenizer would ask another model about others. A count in words and
marks is within some 20 % of Llama's tokens, and whether a story fits is asked of the model's own tokenizer
anyway; `prompt_tokens` on every item lets results be read by tokens.
"""

import random
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from crunchmark.checks import flag, one_of, whole
from crunchmark.hub import resolve, texts
from crunchmark.seeds import seed_of
from tasks.kick.talk import Talk, Talks

HIGHLIGHT = "@highlight"
BUCKETS: dict[str, dict[str, tuple[float, float]]] = {  # from, below
    "marks": {"s": (1, 550), "m": (550, 900), "l": (900, float("inf"))},  # words and punctuation marks
    "words": {"s": (1, 471), "m": (471, 790), "l": (790, float("inf"))},  # the paper's
}


@dataclass(frozen=True)
class Story:
    """A story and its highlights, which are what people said matters in it."""

    id: str
    body: str
    highlights: tuple[str, ...]


@dataclass
class Summaries(Talks):
    """Asks for a summary of every story of a bucket, once.

    path: folder of .story files, searched below; or `dataset` with fields article, highlights and id.
    bucket: s, m or l; null: whatever the folder holds.
    count: what lengths are counted in, marks or words.
    prompt: what is asked; {story} is replaced.
    strip: take the highlights out of the story; the released code leaves them in, and they are the gold.
    stories, seed: how many are drawn of the bucket, and by what.
    """

    path: str | None = None
    dataset: str | None = None
    config: str | None = None
    revision: str | None = None
    split: str = "test"
    bucket: str | None = None
    count: str = "marks"
    prompt: str = "{story}\n\nSummarise the text above."
    strip: bool = True
    stories: int = 100
    seed: int = 0

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.bucket is not None:
            one_of(f"{self.name}.bucket", self.bucket, BUCKETS["marks"])
        one_of(f"{self.name}.count", self.count, BUCKETS)
        flag(f"{self.name}.strip", self.strip)
        whole(f"{self.name}.stories", self.stories)
        if "{story}" not in str(self.prompt):
            raise ValueError(f"{self.name}.prompt={self.prompt!r} has no {{story}}; valid: a text with it")
        if bool(self.path) == bool(self.dataset):
            raise ValueError(
                f"{self.name}.path={self.path!r}, {self.name}.dataset={self.dataset!r}; valid: one of "
                "them, a folder of .story files or a data set with article, highlights and id"
            )

    def load(self) -> Sequence[Talk]:
        """A seeded draw of the bucket's stories, in the order of their ids.

        Raises:
            ValueError: there is no story of that length, or one has no highlight.
        """
        low, high = BUCKETS[self.count][self.bucket] if self.bucket else (0, float("inf"))
        pool = [s for s in self._all() if low <= length(s.body, self.count) < high]
        if not pool:
            where, which = self.path or self.dataset, f"{low} <= {self.count} < {high}"
            raise ValueError(f"{self.name}: no story of length {which} in {where!r}; valid: at least one")
        bare = next((story.id for story in pool if not story.highlights), None)
        if bare is not None:
            raise ValueError(
                f"{self.name}: story {bare!r} has no {HIGHLIGHT}; valid: stories with at least one, the gold"
            )
        rng = random.Random(seed_of(self.seed, "stories"))
        drawn = rng.sample(pool, min(self.stories, len(pool)))
        return [self._talk(story) for story in sorted(drawn, key=lambda s: s.id)]

    def _all(self) -> list[Story]:
        """Every story once, by id: LLM-KICK's folders hold some twice.

        Raises:
            ValueError: the folder or data set is not here or empty, or one id names two texts.
        """
        found: dict[str, Story] = {}
        for story in self._folder(resolve(str(self.path))) if self.path else self._dataset():
            if found.setdefault(story.id, story) != story:
                raise ValueError(f"{self.name}: two stories have the id {story.id!r}; valid: ids that differ")
        return [found[key] for key in sorted(found)]

    def _folder(self, folder: Path) -> Iterator[Story]:
        files = sorted(folder.rglob("*.story"))
        if not files:
            raise ValueError(
                f"{self.name}.path={self.path!r} holds no .story file; valid: a folder with some"
            )
        for file in files:
            try:
                yield story_of(file.stem, file.read_text(encoding="utf-8"))
            except (OSError, UnicodeDecodeError) as error:
                raise ValueError(f"{self.name}: {file} can not be read: {error}") from None

    def _dataset(self) -> Iterator[Story]:
        what = (str(self.dataset), self.config, self.split)
        columns = [texts(*what, name, self.revision) for name in ("id", "article", "highlights")]
        for key, body, told in zip(*columns, strict=True):
            yield Story(str(key), body.strip(), tuple(line for line in told.split("\n") if line.strip()))

    def _talk(self, story: Story) -> Talk:
        gold = "\n".join(story.highlights)
        told = "".join(f"\n\n{HIGHLIGHT}\n\n{line}" for line in story.highlights)
        body = story.body if self.strip else story.body + told
        return Talk(
            id=story.id,
            turns=(str(self.prompt).replace("{story}", body),),
            group=self.bucket or "all",
            kind="summary",
            asked=story.body,
            gold=gold,
            extra={self.count: length(story.body, self.count)},
        )


def story_of(key: str, text: str) -> Story:
    """A .story file: the body, then highlights, each after a line of its own that says so."""
    body, *told = re.split(rf"^{HIGHLIGHT}\s*$", text, flags=re.MULTILINE)
    return Story(key, body.strip(), tuple(line for part in told if (line := " ".join(part.split()))))


def length(text: str, count: str) -> int:
    """Words and punctuation marks, or words between spaces."""
    return len(re.findall(r"\w+|[^\w\s]", text)) if count == "marks" else len(text.split())
