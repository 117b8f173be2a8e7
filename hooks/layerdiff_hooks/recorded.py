"""The prompts that a trace has seen so far, and their decode steps."""

from collections.abc import Sequence
from typing import Any, Protocol

from layerdiff_hooks.calls import Call
from layerdiff_hooks.errors import LayerdiffError
from layerdiff_hooks.writer import require_prompt_id


class Decoder(Protocol):
    """What `trace` needs of a tokenizer."""

    def decode(self, ids: list[int]) -> str:
        """The text of token ids."""
        ...


class Recorded:
    """Prompts in the order of the calls, as the manifest has them."""

    def __init__(
        self, described: Sequence[dict[str, Any]] | None, tokenizer: Decoder | None
    ) -> None:
        """Nothing was seen yet; `described` says what is said of each prompt, if anything.

        Raises:
            LayerdiffError: an id that no prompt may have, or one of two.
        """
        names = [prompt["id"] for prompt in described or []]
        for name in names:
            require_prompt_id(name)
        if len(set(names)) != len(names):
            raise LayerdiffError("two prompts share an id")
        self._described = described
        self._tokenizer = tokenizer
        self.prompts: list[dict[str, Any]] = []

    @property
    def place(self) -> tuple[str, int]:
        """The prompt and the step of the last call."""
        prompt = self.prompts[-1]
        return prompt["id"], len(prompt.get("step_token_ids", []))

    def begin(self, call: Call) -> None:
        """Note a call: without a filled cache a new prompt, else the next step of the last one.

        Raises:
            LayerdiffError: a call too many, or a cache that was filled elsewhere.
        """
        if call.past == 0:
            self._start_prompt(call)
        else:
            self._start_step(call)

    def _start_prompt(self, call: Call) -> None:
        number = len(self.prompts)
        if self._described is not None and number >= len(self._described):
            raise LayerdiffError(f"more calls than the {number} prompts that were named")
        given = self._described[number] if self._described else {"id": f"prompt-{number + 1}"}
        text = given.get("text")
        if text is None and self._tokenizer is not None:
            text = self._tokenizer.decode(call.token_ids)
        self.prompts.append(
            {
                "id": given["id"],
                "category": given.get("category"),
                "text": text,
                "token_ids": call.token_ids,
            }
        )

    def _start_step(self, call: Call) -> None:
        prompt = self.prompts[-1] if self.prompts else None
        steps = prompt.get("step_token_ids", []) if prompt else []
        if prompt is None or call.past != len(prompt["token_ids"]) + len(steps):
            raise LayerdiffError(
                f"the cache holds {call.past} tokens that this trace has not seen",
                "call the model with the prompt inside the trace, then step by step",
            )
        prompt["step_token_ids"] = [*steps, *call.token_ids]
