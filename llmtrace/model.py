"""An open model: what `llmtrace.open` returns. It holds a session, and turns prompts into traces and influence."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from types import TracebackType
from typing import TYPE_CHECKING, TypeAlias

import numpy as np
from attrs import evolve

from llmtrace.calling import ReadWeights, calling, run, run_many
from llmtrace.deriving import Deriving
from llmtrace.edits import Edit
from llmtrace.errors import without_weights
from llmtrace.overlaid import Over
from llmtrace.protocol import Observer, SupportsArithmetic, SupportsMany, SupportsWeights, TraceSession
from llmtrace.recording import Fold, Folding, Plan, Recorder, plan
from llmtrace.replacing import checked, replacing
from llmtrace.schema.arithmetic import NUMPY
from llmtrace.schema.evaluate import Equations
from llmtrace.schema.sites import Array
from llmtrace.selection import DEFAULT_MAX_BYTES, Capture, Selection, as_selection, check_bytes, select
from llmtrace.spec import ModelSpec
from llmtrace.tokens import Tokenizer, encode_prompt, token_of
from llmtrace.trace import ModelInfo, Token, Trace

if TYPE_CHECKING:
    from datetime import datetime

    from llmtrace.chat import Messages
    from llmtrace.influence.logit_lens import Lens
    from llmtrace.influence.record import Influence
    from llmtrace.schema.verify import LocalError

Prompt: TypeAlias = str | Sequence[int]
PLANS = 4
"""Plans that a model remembers."""


class Model:
    """An open model; a context manager. `llmtrace.open` makes it."""

    def __init__(
        self, session: TraceSession, chosen: str = "", info: ModelInfo | None = None, *, warnings: tuple[str, ...] = ()
    ) -> None:
        self.session = session
        self._info = info or session.info
        self.chosen = chosen
        """Why this backend: `native`, `converting`, `reference` or `named`."""
        self.warnings = warnings
        """Other backends that could not say whether they open this model, and why."""
        readable = isinstance(session, SupportsWeights)
        arithmetic = session.arithmetic if isinstance(session, SupportsArithmetic) else NUMPY
        self.equations = Equations(session.spec, self.weights if readable else {}, arithmetic=arithmetic)
        self._plans: dict[tuple[Selection, int], Plan] = {}

    @property
    def info(self) -> ModelInfo:
        """Which model, on which runtime, with which settings."""
        return self._info

    @property
    def spec(self) -> ModelSpec:
        """What the model is."""
        return self.session.spec

    @property
    def tokenizer(self) -> Tokenizer | None:
        """The model's tokenizer, if it brought one."""
        return self.session.tokenizer

    @property
    def weights(self) -> Mapping[str, Array]:
        """The weights in the model's file, by schema name, each read when it is asked for.

        Raises `CapabilityError` where the backend cannot read them; reading one raises `BackendError` where its file cannot be read.
        """
        if not isinstance(self.session, SupportsWeights):
            raise without_weights(f"The backend {self.info.backend} does not read weights")
        return ReadWeights(self.info.backend, self.session.weights)

    def tokens(self, prompt: Prompt) -> tuple[Token, ...]:
        """A prompt as tokens. Raises `PromptError`."""
        return encode_prompt(prompt, self.tokenizer, self.spec.vocab, self.spec.context)

    def chat(self, messages: Messages, *, system: str | None = None, date: datetime | None = None) -> tuple[int, ...]:
        """A conversation as a prompt, written out by the model's own chat template, up to where the model's answer begins.

        `messages` is what a user says, or a list of `{"role": …, "content": …}`; `date` is what a template that asks for one is told.
        The prompt is token ids, since the template has put in what begins a text: `model.trace(model.chat("Hi"))`. Raises
        `ChatTemplateError` where the model has no template, or one that cannot be used; `llmtrace.chat.chat` tells its text too.
        """
        from llmtrace.chat import chat

        return chat(self.tokenizer, messages, system=system, date=date).tokens

    def trace(
        self,
        prompt: Prompt,
        *,
        capture: Capture = None,
        edits: Sequence[Edit] = (),
        replay: Mapping[str, Array] | None = None,
        max_bytes: int | None = DEFAULT_MAX_BYTES,
    ) -> Trace:
        """Run the model over one prompt and record what `capture` names (default: every site but those recorded on request).

        `edits` change signals in flight (`llmtrace.ablate`, `llmtrace.edits`): what is recorded there, and all that is downstream, is
        what they leave. `replay` are whole signals to take as given instead of computing them: what an opaque branch put out on another
        runtime. Raises `PromptError`, `UnknownSignalError`, `OptionError`, `SignalUnavailableError`, `EditNotSupportedError` and
        `CapabilityError` where the backend can do neither, and `LimitError` before the run if the selection is larger than `max_bytes`
        (None: no limit).
        """
        tokens = self.tokens(prompt)
        ready = self.plan(tokens, capture, edits, replay or {})
        check_bytes(ready.bytes, max_bytes)
        recorder = Recorder(ready)
        self._run(ready, recorder)
        return self._trace(tokens, capture, edits, recorder)

    def trace_many(
        self,
        prompts: Sequence[Prompt],
        *,
        capture: Capture = None,
        edits: Sequence[Edit] = (),
        max_bytes: int | None = DEFAULT_MAX_BYTES,
    ) -> list[Trace]:
        """One trace a prompt, the same as one by one; a backend that can runs them together. Raises as `trace` does."""
        tokens = [self.tokens(prompt) for prompt in prompts]
        plans = [self.plan(each, capture, edits) for each in tokens]
        check_bytes(sum(ready.bytes for ready in plans), max_bytes)
        recorders = [Recorder(ready) for ready in plans]
        if isinstance(self.session, SupportsMany):
            observers = [Deriving(ready, recorder) for ready, recorder in zip(plans, recorders, strict=True)]
            run_many(self.session, [ready.request for ready in plans], observers)
            for observer in observers:
                observer.finish()
        else:
            for ready, recorder in zip(plans, recorders, strict=True):
                self._run(ready, recorder)
        return [self._trace(each, capture, edits, recorder) for each, recorder in zip(tokens, recorders, strict=True)]

    def plan(
        self,
        tokens: Sequence[Token],
        capture: Capture = None,
        edits: Sequence[Edit] = (),
        replay: Mapping[str, Array] | None = None,
    ) -> Plan:
        """What a run would hand over, and its bytes. Nothing is run."""
        ids, selection = tuple(token.id for token in tokens), as_selection(capture)
        if edits or replay:
            return plan(self.session, self.equations, selection, ids, edits, replay or {})
        key = (
            selection,
            len(ids),
        )  # prompts of one length differ in nothing else, and a plan of every site takes as long as a short run
        known = self._plans.get(key)
        if known is not None and known.equations is self.equations:
            return evolve(known, ids=ids)
        ready = plan(self.session, self.equations, selection, ids)
        self._plans = {**dict(list(self._plans.items())[1 - PLANS :]), key: ready}
        return ready

    def stream(self, prompt: Prompt, observer: Observer, capture: Capture = None) -> None:
        """Run the model over one prompt and hand each selected signal to `observer` while it runs; nothing is kept."""
        self._run(self.plan(self.tokens(prompt), capture), observer)

    def fold(
        self,
        prompt: Prompt,
        folds: Sequence[Fold],
        *,
        heads: Sequence[int] | None = None,
        tokens: Sequence[int] | None = None,
    ) -> None:
        """Run the model over one prompt, and several folds over its layers in the same pass; the memory is that of one layer.

        `heads` and `tokens` cut what the folds see, as they cut a selection: of patterns, what is left is all that is made.
        """
        sites = dict.fromkeys(site for fold in folds for site in fold.sites)
        ready = self.plan(self.tokens(prompt), select(*sites, heads=heads, tokens=tokens))
        folding = Folding(folds, ready.lasting)
        self._run(ready, folding)
        folding.finish()

    def _run(self, ready: Plan, observer: Observer) -> None:
        deriving = Deriving(ready, observer)
        run(self.session, ready.request, deriving)
        deriving.finish()

    def _trace(self, tokens: tuple[Token, ...], capture: Capture, edits: Sequence[Edit], recorder: Recorder) -> Trace:
        return Trace(
            self.info,
            self.spec,
            tokens,
            recorder.signals(),
            as_selection(capture),
            self.equations.weights,
            tuple(sorted(recorder.plan.equations.given)),
            tuple(edits),
        )

    def verify(self, prompt: Prompt, *, capture: Capture = None) -> list[LocalError]:
        """The local error of every captured signal on one prompt, judged while the model runs, in dataflow order.

        The equations use the weights *in the file*, so a model that computes with others is found out. Raises as `trace` does.
        """
        from llmtrace.checking import Checking

        checking = Checking(self.plan(self.tokens(prompt), capture))
        self.fold(prompt, [checking])
        return checking.errors()

    @contextmanager
    def replaced(self, weights: Mapping[str, Array]) -> Iterator[Model]:
        """Compute with other weights, by schema name and in the schema's shapes, for as long as this is entered; then as before, bit for bit.

        The equations have them too, so that what is derived, explained and verified is of the model that runs, and a trace made here keeps
        them. Numbers are rounded to the type that the model computes in; `model.weights` has them as they then are. Weights that lie in
        the same memory, as those of a tied embedding, are given together. Raises, before anything is touched, `CapabilityError` where the backend
        cannot replace these, and `OptionError` for names, shapes and numbers that cannot be used, and tied weights that do not fit each other.
        """
        able, given, backend = replacing(self.session), checked(self.session, weights), self.info.backend
        with calling(backend, "replaced"):
            entered = able.replaced(given)
            entered.__enter__()
        before = self.equations
        try:
            read = self.weights if isinstance(self.session, SupportsWeights) else given
            held = {name: np.array(read[name]) for name in given}
            del weights, given, read  # they may be as large as the model
            self.equations = evolve(before, weights=Over(held, before.weights))
            yield self
        finally:
            self.equations = before
            with calling(backend, "replaced"):
                entered.__exit__(None, None, None)

    def influence(
        self,
        prompt: Prompt,
        *,
        method: str = "alti",
        position: int = -1,
        target: str | int | None = None,
        foil: str | int | None = None,
    ) -> Influence:
        """How strongly the prediction at `position` depends on each source token, by a named method.

        `target` is an exact token string or id (None: the predicted token), `foil` another one whose logit is subtracted. Raises
        `UnknownMethodError`, `PromptError`, `SignalUnavailableError`.
        """
        from llmtrace.influence import influence

        return influence(self, prompt, (method,), position, target, foil)[0]

    def lens(self, prompt: Prompt, *, position: int = -1, target: str | int | None = None, top: int = 5) -> Lens:
        """The logit lens: what each point of the residual stream would predict (nostalgebraist 2020)."""
        from llmtrace.influence import lens

        return lens(self, prompt, position, target, top)

    def predict(self, prompt: Prompt, position: int = -1) -> Token:
        """The most likely next token at a position; equal logits by id."""
        tokens = self.tokens(prompt)
        logits = self.trace([token.id for token in tokens], capture=select("logits", tokens=[position]))["logits"].array
        return token_of(int(np.argmax(logits[0].astype(np.float64))), self.tokenizer)

    def close(self) -> None:
        """Release the model. Closing twice is allowed."""
        with calling(self.info.backend, "close"):
            self.session.close()

    def __enter__(self) -> Model:
        """Itself."""
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, where: TracebackType | None
    ) -> None:
        """Close."""
        self.close()

    def __repr__(self) -> str:
        """`<Model llama, 30 blocks, on PyTorch: SmolLM2>`"""
        return f"<Model {self.spec.family}, {len(self.spec.blocks)} blocks, on {self.info.runtime}: {self.info.source}>"
