"""Backends whose numbers are wrong: signals, spec or weights."""

from __future__ import annotations

from attrs import evolve, frozen

from llmtrace.schema.arithmetic import NumPy
from tests.meta.honest import Honest, HonestSession
from tests.meta.lie import Lie


class HeadsReversed(HonestSession):
    def hand(self, site, array):
        return array[:, ::-1] if site.endswith("attn.q") else array


class HeadsBeforeTokens(HonestSession):
    def hand(self, site, array):
        return array.swapaxes(0, 1).reshape(array.shape) if site.endswith("attn.q") else array


class RowDropped(HonestSession):
    def hand(self, site, array):
        if site == "blocks.1.attn.pattern":
            array = array.copy()
            array[2, -1] = 0
        return array


class LayersOffByOne(HonestSession):
    """Block L's queries are called those of block L + 1."""

    def hand(self, site, array):
        if site.endswith("attn.q"):
            self.last, array = array, array if site.startswith("blocks.0") else self.last
        return array


class StreamBefore(HonestSession):
    def hand(self, site, array):
        if site.endswith("resid_pre"):
            self.before = array
        return self.before if site.endswith("resid_post") else array


class QueriesNotTurned(HonestSession):
    def hand(self, site, array):
        if site.endswith("attn.q"):
            self.q = array
        return self.q if site.endswith("attn.rot_q") else array


class OtherExperts(HonestSession):
    def hand(self, site, array):
        return (array + 1) % 4 if site.endswith("expert_index") else array


class Consistent(HonestSession):
    """Computes with other weights and says so: every equation holds, of another model."""

    def __init__(self, spec, weights, *rest):
        weights["blocks.1.mlp.W_in"] = 1.01 * weights["blocks.1.mlp.W_in"]
        super().__init__(spec, weights, *rest)


class ShortMemory(HonestSession):
    """Forgets its positions where a prompt is longer than those of the other tests."""

    def hand(self, site, array):
        return array[:1].repeat(len(array), 0) if site == "logits" and len(array) > 32 else array


class ShortMemoryInside(HonestSession):
    """The same, and it shows before the logits."""

    def hand(self, site, array):
        wrong = ("blocks.1.attn.z", "blocks.1.resid_post", "ln_final.out", "logits")
        return array[:1].repeat(len(array), 0) if site in wrong and len(array) > 32 else array


class LogitsAlone(HonestSession):
    """The same, and the logits are all that it offers."""

    def __init__(self, *all):
        super().__init__(*all)
        self.offers = {"logits": self.offers["logits"]}
        self.lasting = ("logits",)

    def hand(self, site, array):
        return array[:1].repeat(len(array), 0) if len(array) > 32 else array


class SaysHalf(HonestSession):
    """A file of float32 is called one of bfloat16."""

    def __init__(self, *all):
        super().__init__(*all)
        self.stored = dict.fromkeys(self.stored, "BF16")


class WithoutSinks(NumPy):
    def softmax(self, s, sinks, pattern, sink, *, shift=True):
        super().softmax(s, None, pattern, None, shift=shift)


class LendsWrong(HonestSession):
    """An operator that it lends leaves out a sink."""

    arithmetic = WithoutSinks()


@frozen
class Kernels:
    kernel: str = "plain"


class WrongKernel(Honest):
    """Under an option that neither preset has, queries come in another order."""

    options = Kernels

    @classmethod
    def preset(cls, preset):
        return Kernels()

    @classmethod
    def open(cls, source, options):
        cls.session = HeadsReversed if options.kernel == "tiled" else HonestSession
        return super().open(source, options)


def block(spec, **changes):
    """The spec with its blocks' attention changed."""
    return tuple(
        evolve(each, branches=tuple(
            evolve(branch, module=evolve(branch.module, **changes)) if branch.name == "attn" else branch for branch in each.branches
        ))
        for each in spec.blocks
    )  # fmt: skip


class WrongScale(HonestSession):
    def __init__(self, *all):
        super().__init__(*all)
        self.spec = evolve(self.spec, blocks=block(self.spec, scale=0.2))


class WrongEpsilon(HonestSession):
    def __init__(self, *all):
        super().__init__(*all)
        self.spec = evolve(self.spec, ln_final=evolve(self.spec.ln_final, eps=1e-2))


class WrongContext(HonestSession):
    def __init__(self, *all):
        super().__init__(*all)
        self.spec = evolve(self.spec, context=self.spec.context * 2)


class WeightsTransposed(HonestSession):
    def __init__(self, *all):
        super().__init__(*all)
        name = "blocks.0.attn.W_O"
        w = self.weights[name]
        self.weights = {**self.weights, name: w.transpose(2, 0, 1).reshape(w.shape)}


class NormsAsTheyRun(HonestSession):
    """Hands out the weights of norms as they are in memory, where the file stores them less one."""

    def __init__(self, *all):
        super().__init__(*all)
        self.weights = {name: w + 1 if w.ndim == 1 else w for name, w in self.weights.items()}


class OneWeightIsAnother(HonestSession):
    """The kind of a look-up by number: block 2 has block 1's."""

    def __init__(self, *all):
        super().__init__(*all)
        self.weights = {**self.weights, "blocks.2.ln1.w": self.weights["blocks.1.ln1.w"]}


EQUATIONS, REFERENCE = "test_every_equation_holds", "test_signals_are_the_references"
FULL = "test_one_token_and_a_full_context_run[llama]"
LIES = [
    Lie("heads in reverse order", HeadsReversed, f"{EQUATIONS}[llama]", r"blocks\.0\.attn\.q is off"),
    Lie("[head, token] read as [token, head]", HeadsBeforeTokens, f"{EQUATIONS}[llama]", r"blocks\.0\.attn\.q is off"),
    Lie("a row of one pattern is lost", RowDropped, f"{EQUATIONS}[gpt2]", r"blocks\.1\.attn\.pattern is off"),
    Lie("layers off by one", LayersOffByOne, f"{EQUATIONS}[qwen3]", r"blocks\.1\.attn\.q is off"),
    Lie("the stream before a block as that after it", StreamBefore, f"{EQUATIONS}[gpt_neox]", r"blocks\.0\.resid_post is off"),
    Lie("q without its rotation as rot_q", QueriesNotTurned, f"{EQUATIONS}[gpt_neox]", r"blocks\.0\.attn\.rot_q is off"),
    Lie("other experts than those chosen", OtherExperts, f"{EQUATIONS}[mixtral]", r"expert_index is off.*other experts"),
    Lie("another model's numbers, in themselves consistent", Consistent, f"{REFERENCE}[llama]", r"from the reference: blocks\.1\.mlp\.\w+: \S+, .* and \d+ more \(rounding explains \d\S+\)"),
    Lie("its weights are not the file's", Consistent, "test_weights_are_the_files[llama]", r"blocks\.1\.mlp\.W_in is not the file's"),
    Lie("long prompts go wrong", ShortMemory, FULL, r"on a prompt of 64 tokens, the logits are \d\S+ away from the reference's \(rounding explains \d\S+\); no other signal is"),
    Lie("long prompts go wrong inside", ShortMemoryInside, FULL, r"64 tokens, .*; the first signal that is: blocks\.1\.attn\.z\b"),
    Lie("long prompts go wrong, and nothing else is shown", LogitsAlone, FULL, r"64 tokens, .*; hand out the signals before them"),
    Lie("weights are called bfloat16", SaysHalf, "test_weights_are_the_files[llama]", r"stored as BF16, and holds numbers that are no BF16"),
    Lie("an operator that is lent leaves out sinks", LendsWrong, "test_lent_operators_compute_what_numpys_do[llama]", r"pattern of float32, with sinks"),
    Lie("an option goes wrong", WrongKernel, "test_variants_hold_too", r"with the options tiles, blocks\.0\.attn\.q is off",
        {"usual": {"kernel": "plain"}, "tiles": {"kernel": "tiled"}}),
    Lie("another scale of scores in the spec", WrongScale, f"{EQUATIONS}[llama]", r"blocks\.0\.attn\.scores is off"),
    Lie("another epsilon in the spec", WrongEpsilon, f"{EQUATIONS}[mistral]", r"ln_final\.\w+ is off"),
    Lie("a longer context than the model's", WrongContext, "test_the_spec_is_the_models[llama]", r"context.* 128"),
    Lie("W_O transposed", WeightsTransposed, "test_weights_are_the_files[llama]", r"blocks\.0\.attn\.W_O is not the file's"),
    Lie("norm weights plus one", NormsAsTheyRun, "test_weights_are_the_files[gemma2]", r"ln\w*\.w is not the file's"),
    Lie("one block's norm is another's", OneWeightIsAnother, "test_weights_are_the_files[llama]", r"blocks\.2\.ln1\.w is not the file's"),
]  # fmt: skip
