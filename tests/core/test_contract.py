"""What a session says of itself is held to the schema before anything is run."""

import attrs
import pytest

from llmtrace.contract import check_contract
from llmtrace.errors import BackendError, ModelOpenError, SchemaViolationError
from llmtrace.protocol import Gap, Offer
from llmtrace.spec import GatedMlp
from llmtrace.trace import Provenance
from tests.specs import SPECS, FakeSession, WeighedSession, equations

Q = "blocks.0.attn.q"


class Fake:
    name = "fake"
    capabilities = ("weights",)


def session(kind=WeighedSession):
    return kind(equations(SPECS["sequential"]))


def refused(match, change, backend=Fake, kind=WeighedSession, error=SchemaViolationError):
    wrong = session(kind)
    change(wrong)
    with pytest.raises(error, match=match):
        check_contract(wrong, backend)


def test_a_sound_session_is_accepted_with_all_its_weights_or_some():
    check_contract(session(), Fake)
    some = session()
    del some.model.weights["blocks.0.attn.W_Q"]
    check_contract(some, Fake)


def test_an_offer_or_a_gap_that_is_no_site_is_refused_with_a_near_name():
    refused(
        r"offers blocks\.0\.attn\.qq, which is no site.*Did you mean",
        lambda s: s.offers.update({"blocks.0.attn.qq": Offer()}),
    )
    refused("has a gap at nonsense", lambda s: s.gaps.update({"nonsense": Gap("ours", "why not")}))


def test_logits_must_be_offered():
    refused("does not offer the logits", lambda s: s.offers.pop("logits"))


def test_what_is_derived_cannot_be_offered():
    refused("as derived", lambda s: s.offers.update({Q: Offer(Provenance("derived"))}))


def test_a_site_is_offered_or_has_a_gap():
    refused("and has a gap there too", lambda s: s.gaps.update({Q: Gap("ours", "why not")}))


def test_a_gap_is_of_one_of_three_kinds():
    def change(s):
        s.offers.pop(Q)
        s.gaps.update({Q: Gap("theirs", "why not")})

    refused("of the kind 'theirs', not ours, upstream, impossible", change)


def test_another_backend_s_name_is_refused():
    refused("that 'other' opened it", lambda s: setattr(s, "info", attrs.evolve(s.info, backend="other")))


def test_capabilities_are_neither_claimed_in_vain_nor_hidden():
    refused("claims the capability 'weights', which its sessions do not show", lambda s: None, kind=FakeSession)

    class Modest(Fake):
        capabilities = ()

    refused("does not claim the capability 'weights'", lambda s: None, backend=Modest)


def test_a_weight_that_no_equation_reads_is_refused():
    refused(
        "has the weight blocks.0.attn.W_QQ.*Did you mean", lambda s: s.model.weights.update({"blocks.0.attn.W_QQ": 0})
    )


def test_a_spec_that_contradicts_itself_is_refused_and_says_whose_it_is():
    def swish(s):
        block = s.spec.blocks[0]
        branches = tuple(
            attrs.evolve(b, module=attrs.evolve(b.module, act="swish")) if isinstance(b.module, GatedMlp) else b
            for b in block.branches
        )
        s.spec = attrs.evolve(s.spec, blocks=(attrs.evolve(block, branches=branches), *s.spec.blocks[1:]))

    refused("The backend fake gives .* activation 'swish'", swish, error=ModelOpenError)

    def heads(s):
        block = s.spec.blocks[0]
        branches = tuple(
            attrs.evolve(b, module=attrs.evolve(b.module, kv_heads=3)) if b.name == "attn" else b
            for b in block.branches
        )
        s.spec = attrs.evolve(s.spec, blocks=(attrs.evolve(block, branches=branches), *s.spec.blocks[1:]))

    refused("cannot share evenly", heads, error=ModelOpenError)


def test_what_is_no_session_is_refused_by_the_member_that_is_wrong():
    with pytest.raises(BackendError, match="failed in open: it returned None"):
        check_contract(None, Fake)
    refused("has `spec` of type dict instead of ModelSpec", lambda s: setattr(s, "spec", {}))
    refused("has `info` of type NoneType instead of ModelInfo", lambda s: setattr(s, "info", None))
    refused("has `offers` of type list instead of Mapping", lambda s: setattr(s, "offers", []))
    refused("has a `tokenizer` that is no Tokenizer", lambda s: setattr(s, "tokenizer", str))
    refused("has no `close`", lambda s: setattr(s, "close", None))


def test_an_offer_is_an_offer_and_a_gap_a_gap():
    refused(r"offers blocks\.0\.attn\.q as str instead of an Offer", lambda s: s.offers.update({Q: "float32"}))

    def change(s):
        s.offers.pop(Q)
        s.gaps = {Q: "why not"}

    refused(r"has str instead of a Gap at blocks\.0\.attn\.q", change)


def test_a_member_that_raises_when_it_is_looked_at_names_the_backend():
    class Lazy(WeighedSession):
        @property
        def weights(self):
            raise OSError("the file is gone")

    refused("backend fake failed in .*OSError: the file is gone", lambda s: None, kind=Lazy, error=BackendError)


def test_what_can_be_replayed_is_a_site():
    class Replaying(WeighedSession):
        replayable = ("blocks.0.mixer_owt",)

    class Claiming(Fake):
        capabilities = ("weights", "replay")

    refused(r"can replay blocks\.0\.mixer_owt, which is no site", lambda s: None, backend=Claiming, kind=Replaying)


def test_no_weight_is_read():
    class Heavy(dict):
        def __getitem__(self, name):
            raise AssertionError(f"{name} was read")

    heavy = session()
    heavy.model = attrs.evolve(heavy.model, weights=Heavy(heavy.model.weights))
    check_contract(heavy, Fake)


def test_what_is_stored_is_a_weight():
    refused(
        r"stores the weight blocks\.0\.attn\.W_QQ", lambda s: setattr(s, "stored", {"blocks.0.attn.W_QQ": "float32"})
    )
