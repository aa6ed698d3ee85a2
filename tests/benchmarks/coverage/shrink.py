"""A type's default config, made small. **Kind of layer**: what the config's lists say of it; one layer of each kind is kept, at least two in all."""

from __future__ import annotations

import inspect
from collections.abc import Mapping
from typing import Any

from transformers import CONFIG_MAPPING, PreTrainedConfig

from tests.benchmarks.coverage.data import DATA
from tests.benchmarks.coverage.sizes import DEPTHS, IDS, LAYERS, SIZES

MOST = 8
"""Layers at most, where more are unlike."""
Fields = dict[str, Any]


def small(kind: str) -> PreTrainedConfig:
    """The small config of a type. Raises what transformers raises where it is none."""
    cls = CONFIG_MAPPING[kind]
    return cls(**shrunk(defaults(cls), getattr(cls, "attribute_map", {}), DATA.get(kind, {})))


def defaults(cls: type[PreTrainedConfig]) -> Fields:
    """What a config says when it is told nothing."""
    try:
        said: Fields = cls().to_dict()
    except Exception:  # a config that will not be made without being told something
        signature = inspect.signature(cls.__init__).parameters.values()
        said = {each.name: each.default for each in signature if each.default is not inspect.Parameter.empty}
    return said


def shrunk(known: Fields, aliases: Mapping[str, str] = {}, told: Fields | None = None) -> Fields:  # noqa: B006  only read
    """What to make a config of: sizes by name, layers by kind, configs within configs the same way; what is told goes before rules."""
    made = {
        name: size for name, size in SIZES.items()
        if (known.get(name) is not None and not isinstance(known[name], list | tuple | dict)) or name in aliases
    }  # fmt: skip
    made |= {name: token for name, token in IDS.items() if name in known}
    if known.get("qk_rope_head_dim") is not None:
        made |= {"head_dim": made["qk_rope_head_dim"]} if "head_dim" in made else {}
        made |= {"num_key_value_heads": made["num_attention_heads"]} if "num_key_value_heads" in made else {}
    made |= _layers(known, made)
    for name, value in known.items():
        if isinstance(value, dict) and value.get("model_type") and name.endswith("config"):
            made[name] = {**value, **shrunk(value, _aliases(value), DATA.get(str(value["model_type"])))}
    return _merged(made, told or {})


def _layers(known: Fields, made: Fields) -> Fields:
    """The lists that have an entry a layer, and the number of layers."""
    depth = next((known[name] for name in DEPTHS if isinstance(known.get(name), int)), None)
    lists = {
        name: list(value) for name, value in known.items() if isinstance(value, list | tuple) and len(value) == depth
    }
    numbers = {name: value for name, value in known.items() if _numbers(name, value)}
    lists = {name: each for name, each in lists.items() if name not in numbers}
    own = known.get("per_layer_config") or {}
    if depth is None or not (lists or numbers or own):
        return {}
    kinds: dict[str, int] = {}
    for layer in range(depth):
        kind = [each[layer] for each in lists.values()], [layer in said for said in numbers.values()], _of(own, layer)
        kinds.setdefault(repr(kind), layer)
    kept = sorted(kinds.values())[:MOST]
    kept += [layer for layer in range(depth) if layer not in kept][: max(0, LAYERS - len(kept))]
    kept.sort()
    found: Fields = {name: len(kept) for name in DEPTHS if name in made}
    found |= {name: [_size(name, each[layer]) for layer in kept] for name, each in lists.items()}
    found |= {name: [place for place, layer in enumerate(kept) if layer in said] for name, said in numbers.items()}
    if own:
        found["per_layer_config"] = {
            place: {name: made.get(name, value) for name, value in said.items()}
            for place, layer in enumerate(kept) if (said := _of(own, layer))
        }  # fmt: skip
    return found


def _of(own: Mapping[Any, Fields], layer: int) -> Fields:
    said: Fields = next((each for name, each in own.items() if int(name) == layer), {})
    return said


def _numbers(name: str, value: Any) -> bool:
    """Whether a list holds numbers of layers, and not something of each layer."""
    named = name.endswith(("_layers", "_idxs", "_indices")) and isinstance(value, list | tuple)
    return named and list(value) == sorted({each for each in value if type(each) is int})


def _size(name: str, value: Any) -> Any:
    return SIZES[name] if isinstance(value, int) and name in SIZES else value


def _aliases(said: Fields) -> Mapping[str, str]:
    kind = said["model_type"]
    found: Mapping[str, str] = getattr(CONFIG_MAPPING[kind], "attribute_map", {}) if kind in CONFIG_MAPPING else {}
    return found


def _merged(made: Fields, told: Fields) -> Fields:
    """What is told in place of what rules made; of a config within, field by field."""
    found = dict(made)
    for name, value in told.items():
        inside = name.endswith("_config") and isinstance(value, dict) and isinstance(found.get(name), dict)
        found[name] = _merged(found[name], value) if inside else value
    return found
