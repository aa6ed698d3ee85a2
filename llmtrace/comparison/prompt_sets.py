"""What models are compared on where nobody says. **Probe**: a text with a name and a purpose; **set**: probes under one name.

`quick` is for every day; `full` takes about twelve times as long and reaches further positions, other scripts, rare tokens. The texts were
written for this purpose, or are free of rights; `source` says which.
"""

from __future__ import annotations

from collections.abc import Mapping

from attrs import frozen

from llmtrace.errors import OptionError

OWN = "written for LLMTrace"
ARTICLE_1 = "Universal Declaration of Human Rights, article 1, as the United Nations publish it in this language"
AUSTEN = "Jane Austen, Pride and Prejudice (1813), chapter 1; Project Gutenberg, ebook 1342"


@frozen
class Probe:
    """One built-in prompt."""

    name: str
    """In tables, in JSON and on the page."""
    purpose: str
    """What it exercises."""
    text: str
    """What is read."""
    source: str = OWN
    """Who wrote it."""


QUICK: tuple[Probe, ...] = (
    Probe(
        "prose",
        "names that come again, so that attention has something to find",
        "When Mary and John went to the store, John gave a drink to Mary. When Mary and",
    ),
    Probe(
        "code",
        "brackets, indents and line breaks",
        "def area(width, height):\n    return width * height\n\nprint(area(3, 4))  # 12\n",
    ),
    Probe(
        "numbers",
        "digits, and characters that many vocabularies hold as bytes",
        "On 17 March 1987, 4,096 of 65,536 samples were lost: 6.25 %. Überraschend? 東京 — да, ναι.",
    ),
    Probe(
        "repeats",
        "a sequence that comes twice: induction",
        "one two three four five six seven eight nine ten one two three four five six seven eight nine",
    ),
)

_LONG = """\
It is a truth universally acknowledged, that a single man in possession of a good fortune, must be in want of a wife.

However little known the feelings or views of such a man may be on his first entering a neighbourhood, this truth is so well fixed in the \
minds of the surrounding families, that he is considered as the rightful property of some one or other of their daughters.

"My dear Mr. Bennet," said his lady to him one day, "have you heard that Netherfield Park is let at last?"

Mr. Bennet replied that he had not.

"But it is," returned she; "for Mrs. Long has just been here, and she told me all about it."

Mr. Bennet made no answer.

"Do not you want to know who has taken it?" cried his wife impatiently.

"You want to tell me, and I have no objection to hearing it."

This was invitation enough.

"Why, my dear, you must know, Mrs. Long says that Netherfield is taken by a young man of large fortune from the north of England; that he \
came down on Monday in a chaise and four to see the place, and was so much delighted with it that he agreed with Mr. Morris immediately; \
that he is to take possession before Michaelmas, and some of his servants are to be in the house by the end of next week."

"What is his name?"

"Bingley."

"Is he married or single?"

"Oh! single, my dear, to be sure! A single man of large fortune; four or five thousand a year. What a fine thing for our girls!"

"How so? how can it affect them?"

"My dear Mr. Bennet," replied his wife, "how can you be so tiresome! You must know that I am thinking of his marrying one of them."

"Is that his design in settling here?"

"Design! nonsense, how can you talk so! But it is very likely that he may fall in love with one of them, and therefore you must visit him \
as soon as he comes."

"I see no occasion for that. You and the girls may go, or you may send them by themselves, which perhaps will be still better, for as you \
are as handsome as any of them, Mr. Bingley might like you the best of the party."
"""

FULL: tuple[Probe, ...] = (
    *QUICK,
    Probe("long", "far positions: half a thousand tokens of dialogue", _LONG, AUSTEN),
    Probe(
        "far repeats",
        "the same eighteen words six times over: induction across a hundred tokens",
        "green lamp, seven rivers, old ladder, quiet mill, copper key, broken oar, wool hat, last train, open gate; "
        * 6,
    ),
    Probe(
        "rare",
        "words and signs that are seldom met in training",
        "The quokka’s zeugma—a syzygy of xylem & phloem—vexed Dr. Ångström: ⟨ψ|Ĥ|φ⟩ ≈ ½ħω ± 3‰ 🦎👩‍🚀 ﬁn. kjxqwz Thvortnik!",
    ),
    Probe(
        "digits",
        "long numbers, a table, arithmetic",
        "3.14159265358979323846 2.71828182845904523536\n12 x 12 = 144\n13 x 13 = 169\n14 x 14 = 196\n1999-12-31T23:59:59Z, -40.5e-3",
    ),
    Probe(
        "markup",
        "nested brackets and quotation marks, runs of blanks and tabs",
        '{"a": [1, 2, {"b": null, "c": "\\u00e9"}],\n\t"d":    true}\n\n<ul>\n  <li class="x">1 &lt; 2</li>\n</ul>\n\n\n- [ ] one\n- [x] two\n',
    ),
    Probe(
        "cyrillic",
        "Cyrillic",
        "Все люди рождаются свободными и равными в своем достоинстве и правах. Они наделены разумом и совестью и должны поступать в "
        "отношении друг друга в духе братства.",
        ARTICLE_1,
    ),
    Probe(
        "arabic",
        "Arabic, right to left, with its vowel signs",
        "يولد جميع الناس أحرارًا متساوين في الكرامة والحقوق. وقد وهبوا عقلًا وضميرًا وعليهم أن يعامل بعضهم بعضًا بروح الإخاء.",
        ARTICLE_1,
    ),
    Probe(
        "hebrew",
        "Hebrew, right to left",
        "כל בני האדם נולדו בני חורין ושווים בערכם ובזכויותיהם. כולם חוננו בתבונה ובמצפון, לפיכך חובה עליהם לנהוג איש ברעהו ברוח של אחווה.",
        ARTICLE_1,
    ),
    Probe(
        "devanagari",
        "Hindi: letters that combine",
        "सभी मनुष्यों को गौरव और अधिकारों के मामले में जन्मजात स्वतन्त्रता और समानता प्राप्त है। उन्हें बुद्धि और अन्तरात्मा की देन प्राप्त है "
        "और परस्पर उन्हें भाईचारे के भाव से बर्ताव करना चाहिए।",
        ARTICLE_1,
    ),
    Probe(
        "chinese",
        "Chinese: no blanks between words",
        "人人生而自由，在尊严和权利上一律平等。他们赋有理性和良心，并应以兄弟关系的精神相对待。",
        ARTICLE_1,
    ),
    Probe(
        "japanese",
        "Japanese: three scripts in one sentence",
        "すべての人間は、生まれながらにして自由であり、かつ、尊厳と権利とについて平等である。人間は、理性と良心とを授けられており、"
        "互いに同胞の精神をもって行動しなければならない。",
        ARTICLE_1,
    ),
)

SETS: Mapping[str, tuple[Probe, ...]] = {"quick": QUICK, "full": FULL}
"""By the name that `--prompt-set` takes."""


def prompt_set(name: str) -> tuple[Probe, ...]:
    """The probes of a set. Raises `OptionError` for a name that none has."""
    if name not in SETS:
        raise OptionError(f"There is no set of prompts called {name!r}; there are {', '.join(SETS)}.")
    return SETS[name]
