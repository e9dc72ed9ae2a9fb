"""Every parser of text: replies of models, and what people type."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from random import Random
from typing import NamedTuple

from hypothesis import strategies as st

from evenhand.core import registry, specs, yaml_reader
from evenhand.core.word_lists import listed
from evenhand.data import bbq, bbq_target, kobbq
from evenhand.data.io import hub, rows
from evenhand.data.io.delimited import read_delimited
from evenhand.data.io.locate import Problems
from evenhand.evaluation.b_score import chosen
from evenhand.evaluation.gpqa import parse_official
from evenhand.evaluation.honest import first_word
from evenhand.evaluation.metrics import ifeval_checkers
from evenhand.interfaces import Question
from evenhand.methods.prompting._answer_lines import answer_line
from evenhand.methods.prompting._rewrites import UnusableRewriteError, names_all, read_fields
from evenhand.methods.prompting._rewrites import listed as rewritten
from evenhand.methods.prompting.intent_self_correction import read_critique
from evenhand.prompting import thinking
from evenhand.prompting.prompt_packs import prompt_pack
from evenhand.prompting.reply_parsing import read_choice

QUESTIONS = (
    Question("q", "Who was late?", ("The grandfather", "The grandson", "Can't be determined")),
    Question("q", "谁?", ("祖父", "孙子", "不能确定"), shown=(2, 0, 1)),
    Question("q", "누가?", ("할아버지", "손자", "알 수 없음")),
    Question("q", "How many?", ("-2.5", "2.5", "25 %", "+")),
    Question("q", "Which?", ("A", "B", "C", "I")),
    Question("q", "Qui?", ("L'homme", "La femme d'Angelo", "On ne sait pas")),
    Question("q", "?", ("", " ", "?", "not B")),
    Question("q", "ใคร?", ("ปู่", "หลาน", "ไม่รู้")),
    Question("q", "من؟", ("الجد", "الحفيد", "غير معروف")),
)
WORDS = (
    *(
        "A",
        "B",
        "(B)",
        "**C**",
        "the answer is ",
        "Answer: ",
        "답은 ",
        "答案是",
        "not ",
        "no es ",
        "不是",
        "or ",
        " and ",
    ),
    *("The grandfather", "the grandson", "can't be determined", "Can not", "祖父", "孙子", "ใคร", "ปู่", "الجد", "-2.5"),
    *("<think>", "</think>", "<THINK>", "[THINK]", "[/THINK]", "<|channel|>analysis<|message|>", "<|end|>", "◁think▷"),
    *("<|channel|>final<|message|>", "<|start|>assistant", "{{red}}", "{{", "}}", "\n", "\r\n", "\t", " ", "  ", "\0"),
    *(
        "\ud800",
        "\udfff",
        "\u2028",
        "\u200f",
        "\u00ad",
        "İ",
        "ß",
        "ﬁ",
        "e\u0301",
        "Ⅷ",
        "①",
        "²",
        "😀",
        "*",
        "_",
        "`",
        "'",
    ),
    *(
        '"',
        "“",
        "「",
        "」",
        "(",
        ")",
        "[",
        "]",
        ".",
        ",",
        ":",
        "：",
        "-",
        "–",
        "if ",
        "I do not think ",
        "wrong",
        " is ",
    ),
    *(
        "4/4",
        "Score: 3",
        "9" * 5_000,
        "[" * 3_000,
        "((" * 50,
        "A) " * 40,
        "Question:",
        "```",
        "l'",
        "n't ",
        "ليس ",
        "ไม่ใช่",
    ),
)
SPEC_WORDS = (
    *("pride", "none", "pcgu", "(", ")", "[", "]", "{", "}", "=", ",", "+", "'", '"', "\\", ":", "/", "~", "-", "."),
    *(
        "seed=1",
        "k=0.3",
        "preset=paper",
        "x",
        "a=",
        "=1",
        "1e999",
        "None",
        "True",
        "**",
        "*",
        "lambda",
        "f(",
        "\0",
        "\n",
    ),
    *(
        "9" * 5_000,
        "[" * 300,
        "(" * 3_000,
        "-" * 3_000,
        "1+" * 2_000,
        "\ud800",
        "é",
        "0x",
        "0b2",
        "b'x'",
        "f'{x}'",
        "...",
        "#",
    ),
    *(
        "if 1 else 2",
        "a.b",
        "x:=1",
        "texts/mine.txt",
        "http://u:p@h/",
        "٣",
        "1_000",
        "1j",
        "&",
        "|",
        ";",
        " ",
        "\t",
        "@",
    ),
)
CODE_WORDS = (
    *(
        "[",
        "]",
        "{",
        "}",
        ":",
        ",",
        '"',
        "'",
        "a",
        "1",
        "-",
        "null",
        "true",
        "NaN",
        "1e999",
        "\\u",
        "\\ud800",
        "\n",
        "- ",
    ),
    *(
        "a: ",
        "&a ",
        "*a",
        "<<: ",
        "!!int ",
        "!!float ",
        "!!bool ",
        "!!null ",
        "!!binary ",
        "!!timestamp ",
        "!!set ",
        "!!omap ",
        "!x ",
    ),
    *(
        "? ",
        "| ",
        "> ",
        "%YAML 1.2\n",
        "--- ",
        "...",
        "#",
        "2001-99-99",
        "2001-01-01 99:00:00",
        "0o9",
        "0b",
        "0x",
        "1:99",
        "=",
    ),
    *(
        '"\\UFFFFFFFF"',
        '"\\x"',
        "\0",
        "\ufeff",
        "\ud800",
        "[" * 3_000,
        "{a: " * 3_000,
        "- " * 3_000,
        "9" * 5_000,
        "(" * 3_000,
    ),
    *("!!python/object:os.system x", "{0: ['a', 'b']}", "\t", "\r", "\x85", "_", "1_0", ".inf", ".nan", "~", "yes"),
)


class Parser(NamedTuple):
    """A parser, and pieces that its texts are made of."""

    name: str
    parse: Callable[[str], object]
    words: Sequence[str]
    documented: tuple[type[Exception], ...] = ()
    """Errors besides evenhand's own that its docstring names."""


def strategy(words: Sequence[str]) -> st.SearchStrategy[str]:
    """Texts of these pieces, of any characters, or of one piece many times over."""
    piece = st.sampled_from(words) | st.text(st.characters(codec=None, exclude_categories=()), max_size=8)
    several = st.lists(piece, max_size=14).map("".join)
    repeated = st.tuples(several, st.sampled_from(words), st.integers(2, 300), several).map(_repeated)
    return several | several | repeated


def drawn(words: Sequence[str], draws: Random) -> str:
    """A text as `strategy` has it."""

    def several() -> str:
        return "".join(draws.choice(words) if draws.random() < 0.8 else _any(draws) for _ in range(draws.randrange(15)))

    if draws.random() < 0.7:
        return several()
    return _repeated((several(), draws.choice(words), draws.randint(2, 300), several()))


def _any(draws: Random) -> str:
    """Any character, every second time one of the first 256."""
    return chr(draws.randrange(draws.choice((256, 0x110000))))


def _repeated(parts: tuple[str, str, int, str]) -> str:
    before, piece, times, after = parts
    return before + piece * max(2, min(times, 20_000 // len(piece))) + after


def _choices(text: str) -> object:
    return [read_choice(text, question, finished) for question in QUESTIONS for finished in (True, False)]


def _option(text: str) -> object:
    """The text as an option."""
    question = Question("q", "Which?", (text, "something else", text[::-1]))
    return [
        read_choice(reply, question, finished) for reply in (text, f"It is {text}.", "B") for finished in (True, False)
    ]


def _rewrite(text: str) -> object:
    marks = prompt_pack("en").bias_free_texts
    framed = f"{marks.system_mark}\n{text}\n{marks.question_mark}\n{text}"
    try:
        return [
            rewritten(text, ("one", "two")),
            names_all(text, ("one", "two")),
            read_fields(text, marks),
            read_fields(framed, marks),
        ]
    except UnusableRewriteError:
        return None


def _bbq_cells(text: str) -> object:
    from tests.fuzz import seeds

    found = []
    for row in (*seeds.BBQ[:1], *seeds.INTERSECTIONAL[:1], *seeds.INTERSECTIONAL[-1:]):
        for name in ("question_index", "category", "answer_info", "additional_metadata", "example_id", "label"):
            changed = {**row, name: text}
            try:
                found.append((bbq_target.target_location(bbq.checked(changed)), bbq_target.label_type(changed)))
            except ValueError as error:
                found.append(str(error))
    return found


def _delimited(text: str) -> object:
    from pathlib import Path

    content = text.encode("utf-8", "surrogatepass")
    return [list(read_delimited(Path("a.tsv"), content, (), Problems(), delimiter=mark)) for mark in ",\t"]


def _kobbq(text: str) -> object:
    from tests.fuzz import seeds

    return [kobbq.row_of({**seeds.KOBBQ[0], name: text}) for name in ("choices", "sample_id")]


def _ifeval(text: str) -> object:
    """What a model wrote, checked for instructions of every shape."""
    asked = (
        ("punctuation:no_comma", {}),
        ("length_constraints:number_sentences", {"relation": "at least", "num_sentences": 2}),
        ("length_constraints:number_paragraphs", {"num_paragraphs": 2}),
        ("detectable_format:json_format", {}),
        ("detectable_format:title", {}),
        ("startend:quotation", {}),
        ("change_case:capital_word_frequency", {"capital_relation": "at least", "capital_frequency": 2}),
        ("detectable_content:postscript", {"postscript_marker": "P.S."}),
    )
    return [ifeval_checkers.loose(name, given, text, sentences="built_in") for name, given in asked]


def parsers() -> dict[str, Parser]:
    """All parsers by name."""
    found = [
        Parser("choices", _choices, WORDS),
        Parser("options", _option, WORDS),
        Parser("thoughts", lambda t: (thinking.parts(t), thinking.is_cut(t)), WORDS),
        Parser("critique", read_critique, WORDS),
        Parser("answer line", lambda t: answer_line(t, "Answer:"), WORDS),
        Parser("rewrite", _rewrite, WORDS),
        Parser("braces", lambda t: chosen(t, ("red", "blue")), WORDS),
        Parser("gpqa", lambda t: (parse_official(t), parse_official(t, False)), WORDS),
        Parser("first word", first_word, WORDS),
        Parser("spec", specs.parse, SPEC_WORDS),
        Parser("stack", specs.stack, SPEC_WORDS),
        Parser("method", registry.build_method, SPEC_WORDS),
        Parser("benchmark", registry.build_benchmark, SPEC_WORDS),
        Parser("hub name", lambda t: hub.hub_of(f"datasets:{t}", with_column=True), SPEC_WORDS),
        Parser("word list", listed, WORDS, (ValueError,)),
        Parser("yaml", yaml_reader.load, CODE_WORDS, (yaml_reader.yaml.YAMLError,)),
        Parser("json", rows.from_json, CODE_WORDS, (rows.Refused,)),
        Parser("written list", rows.unwritten, CODE_WORDS),
        Parser("kobbq cells", _kobbq, CODE_WORDS, (rows.Refused,)),
        Parser("bbq cells", _bbq_cells, CODE_WORDS),
        Parser("delimited", _delimited, CODE_WORDS),
    ]
    if ifeval_checkers.available():
        found.append(Parser("ifeval", _ifeval, WORDS))
    return {parser.name: parser for parser in found}
