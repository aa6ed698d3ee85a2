"""Backends that go wrong before a model is open, or take a damaged file for one."""

from __future__ import annotations

import time
from pathlib import Path

from attrs import field, frozen

from llmtrace.errors import ModelOpenError, OptionError
from tests.meta.honest import Honest
from tests.meta.lie import Lie


class ErrorsOfItsParser(Honest):
    """Whatever its parser raises comes out."""

    @classmethod
    def open(cls, source, options):
        try:
            return super().open(source, options)
        except ModelOpenError as error:
            raise ValueError("unpack requires a buffer of 8 bytes") from error


class OpensAnything(Honest):
    """Where the weights cannot be read, it takes those of the last model that could be."""

    @classmethod
    def open(cls, source, options):
        try:
            cls.good = super().open(source, options)
        except ModelOpenError:
            if not hasattr(cls, "good"):  # the fault needs a model: the neighbour of a damaged copy
                raise
        return cls.good


class Mends(Honest):
    """Fills up with noughts what a file lacks."""

    @classmethod
    def open(cls, source, options):
        path = Path(source) / "model.safetensors"
        content = path.read_bytes() if path.is_file() else b""
        if content and (end := 8 + int.from_bytes(content[:8], "little")) < len(content):
            import json

            sizes = [
                entry["data_offsets"][1] for name, entry in json.loads(content[8:end]).items() if name != "__metadata__"
            ]
            path.write_bytes(content.ljust(end + max(sizes), b"\0"))
        return super().open(source, options)


class NamesNothing(Honest):
    """Refuses without saying what."""

    @classmethod
    def open(cls, source, options):
        try:
            return super().open(source, options)
        except ModelOpenError as error:
            raise ModelOpenError("The model could not be opened.") from error


class ClaimsAll(Honest):
    @staticmethod
    def probe(source, path):
        return "native"


class ClaimsNothing(Honest):
    @staticmethod
    def probe(source, path):
        return None


class Slow(Honest):
    @staticmethod
    def probe(source, path):
        time.sleep(0.6)
        return "native"


@frozen
class Demanding:
    threads: int


class NoDefault(Honest):
    options = Demanding

    @classmethod
    def preset(cls, preset):
        return cls.options(1)


@frozen
class Listed:
    devices: list = field(factory=list)


class ListOption(Honest):
    options = Listed

    @classmethod
    def preset(cls, preset):
        return cls.options()


@frozen
class Kernels:
    kernel: str = "slow"


class ShippedIsBroken(Honest):
    """Only its `exact` opens."""

    options = Kernels

    @classmethod
    def preset(cls, preset):
        return cls.options("slow" if preset == "exact" else "fast")

    @classmethod
    def open(cls, source, options):
        if options.kernel == "fast":
            raise OptionError("There is no kernel 'fast'.")
        return super().open(source, options)


class NotInstalled(Honest):
    """Names a distribution that there is not."""

    distributions = ("numpy", "no-such-runtime-anywhere")


class NoTuple(Honest):
    distributions = "numpy"


TRUNCATED, ELSE = "test_files_that_were_cut_off", "test_files_that_hold_something_else"
PROBES, OPTIONS = "test_it_claims_its_own_files_and_no_others", "test_options_are_documented_and_checked"
LIES = [
    Lie(
        "a truncated file ends in a ValueError",
        ErrorsOfItsParser,
        TRUNCATED,
        r"config\.json.*ValueError: unpack requires",
    ),
    Lie(
        "a file of other bytes ends in a ValueError",
        ErrorsOfItsParser,
        ELSE,
        r"config\.json.*ValueError: unpack requires",
    ),
    Lie(
        "a source that is not there ends in a ValueError",
        ErrorsOfItsParser,
        "test_a_source_that_is_not_there",
        r"ValueError: unpack",
    ),
    Lie("a damaged file is opened as another model", OpensAnything, ELSE, r"was opened"),
    Lie("a truncated file is filled up", Mends, TRUNCATED, r"model\.safetensors\S* was opened"),
    Lie("an error names no file", NamesNothing, TRUNCATED, r"the error does not name .*could not be opened"),
    Lie("every source is claimed", ClaimsAll, PROBES, r"it claims to open notes\.txt"),
    Lie("its own source is not claimed", ClaimsNothing, PROBES, r"does not claim .*llama"),
    Lie("probing is slow", Slow, "test_probing_is_quick", r"took 0\.[67]"),
    Lie("an option has no default", NoDefault, OPTIONS, r"the option threads has no default"),
    Lie("an option is a list", ListOption, OPTIONS, r"the option devices"),
    Lie(
        "the shipped preset does not open",
        ShippedIsBroken,
        "test_the_shipped_preset_gives_the_models_logits",
        r"no kernel 'fast'",
    ),
    Lie(
        "a distribution is named that there is not",
        NotInstalled,
        "test_the_backend_is_what_plugins_are",
        r"no-such-runtime-anywhere",
    ),
    Lie("distributions are no tuple", NoTuple, "test_the_backend_is_what_plugins_are", r"distributions"),
]
