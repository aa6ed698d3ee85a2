"""A `config.json`, read by attribute. **Default**: what a key means where the file leaves it out, as in transformers' config classes."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from attrs import field, frozen

from llmtrace.errors import ModelOpenError


@frozen(eq=False)
class Config(Mapping[str, Any]):
    """Reads `config.key` from the file, from the key's other spelling, then from the family's defaults.

    A key that is nowhere raises `ModelOpenError`, which names it. A key that the file sets to null is null, not its default.
    """

    _data: Mapping[str, Any]
    _defaults: Mapping[str, Any] = field(factory=dict)
    _spellings: Mapping[str, str] = field(factory=dict)
    """Our key to the family's own: `hidden_size` is `n_embd` in GPT-2."""

    def __getitem__(self, key: str) -> Any:
        for source in (self._data, self._defaults):
            for spelling in (key, self._spellings.get(key, key)):
                if spelling in source:
                    return source[spelling]
        raise KeyError(key)

    def __iter__(self) -> Iterator[str]:
        return iter(dict.fromkeys([*self._data, *self._defaults]))

    def __len__(self) -> int:
        return len(list(iter(self)))

    def spelled(self, key: str) -> str:
        """A key as the file writes it, or else as the family does."""
        return key if key in self._data else self._spellings.get(key, key)

    def __getattr__(self, key: str) -> Any:
        if key.startswith("_"):
            raise AttributeError(key)
        if key not in self:
            raise ModelOpenError(
                f"config.json lacks {self.spelled(key)!r}, which a {self._data.get('model_type')} model must state."
            )
        return self[key]
