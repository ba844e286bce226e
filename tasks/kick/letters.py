"""Multiple choice by letters, with a free answer to the same prompt behind the log-likelihoods."""

from collections import defaultdict
from collections.abc import Mapping
from copy import deepcopy
from typing import Any

from lm_eval.api.instance import Instance
from lm_eval.api.task import ConfigurableTask

from crunchmark.checks import Malformed


class Letters(ConfigurableTask):
    """lm-eval's task with shots of the question's own subject."""

    def __init__(self, config: Mapping[str, Any]) -> None:
        super().__init__(config={key: value for key, value in config.items() if key != "class"})
        self._shots: dict[str, list[Any]] = defaultdict(list)
        for doc in self.fewshot_docs():
            self._shots[doc["subject"]].append(doc)

    def fewshot_context(self, doc: Any, num_fewshot: int, *args: Any, **kwargs: Any) -> Any:
        """The prompt, its examples from the subject that is asked about.

        Raises:
            Malformed: More examples are asked for than the subject has.
        """
        there = self._shots[doc["subject"]]
        if num_fewshot > len(there):
            raise Malformed(
                f"num_fewshot={num_fewshot} is more than the examples of {doc['subject']!r}; "
                f"valid: 0 to {len(there)}"
            )
        self.sampler.replace_df(there)
        return super().fewshot_context(doc, num_fewshot, *args, **kwargs)

    def construct_requests(self, doc: Any, ctx: Any, **kwargs: Any) -> Any:
        """The letters' log-likelihoods and, last, a free answer; where letters are read off that, only it."""
        asked = super().construct_requests(doc, ctx, **kwargs)
        if not isinstance(asked, list):
            return asked
        kept = {key: value for key, value in kwargs.items() if key == "metadata"}
        free = (ctx, deepcopy(self.config.generation_kwargs))
        return [*asked, Instance("generate_until", doc, free, len(asked), **kept)]
