"""Backends that edit something else, or do several prompts together wrongly."""

from __future__ import annotations

from typing import ClassVar

from attrs import evolve

from llmtrace.selection import Cut
from tests.meta.honest import Between, HonestSession
from tests.meta.lie import Lie
from tests.meta.wrong_honesty import Tail


def editing(name, change):
    """A session that makes something else of a request's edits."""

    def run(self, request, observer):
        HonestSession.run(self, evolve(request, edits=change(request.edits)), observer)

    return type(name, (HonestSession,), {"run": run})


def everywhere(change, place):
    """A change without its cut along one axis."""
    if change.cut.indices[place] is None:
        return change
    indices = tuple(None if axis == place else part for axis, part in enumerate(change.cut.indices))
    value = None if change.value is None else change.value.take([0], place)
    return evolve(change, cut=Cut(indices), value=value)


Ignores = editing("Ignores", lambda edits: {})
EditsTwice = editing("EditsTwice", lambda edits: {site: (*changes, *changes) for site, changes in edits.items()})
LastEditOnly = editing("LastEditOnly", lambda edits: {site: changes[-1:] for site, changes in edits.items()})


class FirstSiteOnly(HonestSession):
    """Edits one site a run."""

    def run(self, request, observer):
        super().run(evolve(request, edits=dict(list(request.edits.items())[:1])), observer)


class EditsWhatIsAsked(HonestSession):
    """Has hooks where signals are asked for, and edits there only."""

    def run(self, request, observer):
        edits = {site: changes for site, changes in request.edits.items() if site in request.cuts}
        super().run(evolve(request, edits=edits), observer)


class AllHeads(HonestSession):
    """Changes every head where one was named."""

    def run(self, request, observer):
        edits = {}
        for site, changes in request.edits.items():
            axes = self._equations.steps[site].axes
            heads = next((place for place, axis in enumerate(axes) if axis in ("head", "kv_head")), None)
            edits[site] = [change if heads is None else everywhere(change, heads) for change in changes]
        super().run(evolve(request, edits=edits), observer)


class Leaks(HonestSession):
    """What was edited once stays so until something else is."""

    kept: ClassVar[dict] = {}

    def run(self, request, observer):
        self.kept = request.edits or self.kept
        super().run(evolve(request, edits=self.kept), observer)


class LeaksAfterFailure(HonestSession):
    """The same, where the run ended in an exception."""

    kept: ClassVar[dict] = {}

    def run(self, request, observer):
        edits, self.kept = request.edits or self.kept, request.edits
        super().run(evolve(request, edits=edits), observer)
        self.kept = {}


class EditsACopy(HonestSession):
    """Changes what is handed over, and not what flows on."""

    def run(self, request, observer):
        self.edits = request.edits
        super().run(evolve(request, edits={}), observer)

    def hand(self, site, array):
        array = array.copy()
        for change in self.edits.get(site, ()):
            change.apply(array)
        return array


class EditsUnseen(HonestSession):
    """Hands over what there was before the edit."""

    def run(self, request, observer):
        before = Kept()
        super().run(evolve(request, edits={}), before)
        super().run(request, Shows(observer, {site: before.arrays[site] for site in request.edits}))


class Kept:
    """Keeps what comes."""

    def __init__(self):
        self.arrays = {}

    def signal(self, site, array):
        self.arrays[site] = array.copy()

    def layer_done(self, layer):
        pass


class Shows(Between):
    """Passes on other arrays."""

    def __init__(self, observer, others):
        super().__init__(observer)
        self.others = others

    def signal(self, site, array):
        super().signal(site, self.others.get(site, array))


class Editable(HonestSession):
    """Claims to edit what it cannot, and says nothing."""

    def run(self, request, observer):
        edits = {site: changes for site, changes in request.edits.items() if not site.endswith("attn.scores")}
        super().run(evolve(request, edits=edits), observer)


class Padded(HonestSession):
    """Pads short prompts in front, and lets every token see the padding."""

    def run_many(self, requests, observers):
        longest = max(len(request.tokens) for request in requests)
        for request, observer in zip(requests, observers, strict=True):
            pad = longest - len(request.tokens)
            tail = Tail(observer, pad, self._equations.steps)
            self.run(evolve(request, tokens=(0,) * pad + request.tokens), tail)


class CutsOfTheFirst(HonestSession):
    """Cuts every prompt as the first."""

    def run_many(self, requests, observers):
        for request, observer in zip(requests, observers, strict=True):
            cuts = {site: requests[0].cuts.get(site, cut) for site, cut in request.cuts.items()}
            self.run(evolve(request, cuts=cuts), observer)


class OthersObserver(HonestSession):
    """The prompts are sorted by length, the observers are not."""

    def run_many(self, requests, observers):
        for request, observer in zip(sorted(requests, key=lambda request: len(request.tokens)), observers, strict=True):
            self.run(request, observer)


class EditsAllPrompts(HonestSession):
    """One prompt's edits are made in all."""

    def run_many(self, requests, observers):
        edits = next((request.edits for request in requests if request.edits), {})
        for request, observer in zip(requests, observers, strict=True):
            self.run(evolve(request, edits=edits), observer)


class EditsNoPrompts(HonestSession):
    """Edits are for `run` alone."""

    def run_many(self, requests, observers):
        for request, observer in zip(requests, observers, strict=True):
            self.run(evolve(request, edits={}), observer)


class BlocksApart(HonestSession):
    """Ends the blocks of all prompts but the first at once."""

    def run_many(self, requests, observers):
        class Ends(Between):
            def layer_done(self, layer):
                for each in range(3) if layer == 0 else ():
                    super().layer_done(each)

        for place, (request, observer) in enumerate(zip(requests, observers, strict=True)):
            self.run(request, Ends(observer) if place else observer)


class ReplayIgnored(HonestSession):
    def run(self, request, observer):
        super().run(evolve(request, replay={}), observer)


class ReplayScaled(HonestSession):
    """Writes into arrays that belong to the caller."""

    def run(self, request, observer):
        super().run(request, observer)
        for array in request.replay.values():
            array[:] = 0


class ReplaysNothing(HonestSession):
    def __init__(self, *all):
        super().__init__(*all)
        self.replayable = ()


class NothingEditable(HonestSession):
    def __init__(self, *all):
        super().__init__(*all)
        self.editable = ()


MADE, FOLLOWS = (
    "test_an_edited_signal_is_what_the_edit_makes_of_it[llama]",
    "test_what_follows_an_edit_follows_from_it[llama]",
)
GONE = "test_edits_of_one_run_act_together_and_are_gone_after_it[llama]"
TOGETHER, EDITED = "test_prompts_together_are_prompts_alone[llama]", "test_edits_of_one_prompt_leave_the_others[llama]"
REPLAY = "test_replayed_signals_are_taken_as_given[llama]"
LIES = [
    Lie("edits are ignored", Ignores, MADE, r"zero\(embed.*embed is not what"),
    Lie("edits are made twice", EditsTwice, MADE, r"(add|scale)\((\S+), .* \2 is not what"),
    Lie("of several edits the last is made", LastEditOnly, GONE, r"add\(embed.*embed is not what"),
    Lie("of several edited sites the first is edited", FirstSiteOnly, GONE, r"add\(embed.*the logits are .* away"),
    Lie("only what is asked for is edited", EditsWhatIsAsked, FOLLOWS, r"under zero\(embed.*with nothing else asked for"),
    Lie("all heads are edited where one was named", AllHeads, MADE, r"heads=.*, blocks\.0\.attn\.\w+ is not what"),
    Lie("an edit stays for the next run", Leaks, GONE, r"in the next run, embed is not what it was"),
    Lie("an edit stays after a run that failed", LeaksAfterFailure, GONE, r"in the run after one that failed, embed is not what it was"),
    Lie("an edit is made in what is handed over only", EditsACopy, FOLLOWS, r"under zero\(embed.*: .*blocks"),
    Lie("an edit is made and not handed over", EditsUnseen, MADE, r"zero\(embed.*embed is not what"),
    Lie("one editable site cannot be edited", Editable, MADE, r"blocks\.0\.attn\.scores is not what"),
    Lie("edits are claimed and no site is editable", NothingEditable, MADE, r"edits are claimed, and no site is editable"),
    Lie("the same, several edits at once", NothingEditable, GONE, r"edits are claimed, and no site is editable"),
    Lie("the same, several prompts at once", NothingEditable, EDITED, r"edits are claimed, and no site is editable"),
    Lie("padding leaks", Padded, TOGETHER, r"prompt 0 of 4, 3 tokens: blocks"),
    Lie("all prompts are cut as the first", CutsOfTheFirst, TOGETHER, r"prompt 1 of 4, .*: the shape of \S+"),
    Lie("observers get each other's prompts", OthersObserver, TOGETHER, r"prompt 0 of 4, 3 tokens: the shape of embed"),
    Lie("blocks end early when prompts run together", BlocksApart, TOGETHER, r"blocks\.1\.\S+ came after block 1 had ended"),
    Lie("one prompt's edits are made in all", EditsAllPrompts, EDITED, r"prompt 1 of 3, 12 tokens: .*embed"),
    Lie("edits are ignored when prompts run together", EditsNoPrompts, EDITED, r"prompt 0 of 3, 3 tokens, edited at embed: .*embed"),
    Lie("replay is ignored", ReplayIgnored, REPLAY, r"with \S+ given, the logits are"),
    Lie("replayed arrays are written to", ReplayScaled, REPLAY, r"wrote to the replayed embed"),
    Lie("replay is claimed and nothing can be", ReplaysNothing, REPLAY, r"nothing can be replayed"),
]  # fmt: skip
