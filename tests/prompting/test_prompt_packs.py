"""Packs: languages say the same things, methods speak them, a file of one's own works, a broken one is told why."""

from __future__ import annotations

import re
from pathlib import Path
from string import Formatter

import pytest
import yaml

from evenhand.core.registry import build_method
from evenhand.errors import DataError, UnknownNameError
from evenhand.interfaces import Dialogue, Message, Question
from evenhand.prompting.prompt_packs import FOLDER, PromptPack, prompt_pack
from evenhand.prompting.rendering import SINGLE_LETTER, as_dialogue
from evenhand.prompting.reply_parsing import read_choice
from evenhand.testing import ScriptedModel, tiny_model

DE, EN = prompt_pack("de"), prompt_pack("en")
QA = "Zwei trafen sich. Wer war laut?\n(A) y zwei\n(B) x eins"
BASELINE = f"Beantworte die Multiple-Choice-Frage mit einem einzigen Buchstaben.\n\n{QA}"


def question(**more: object) -> Question:
    given = {"context": "Zwei trafen sich.", "shown": (1, 0), "axis": "Age", **more}
    return Question("q", "Wer war laut?", ("x eins", "y zwei"), **given)  # type: ignore[arg-type]


def turns(*contents: str) -> tuple[Message, ...]:
    return tuple(Message("assistant" if i % 2 else "user", c) for i, c in enumerate(contents))


def leaves(value: object, at: str = "") -> dict[str, str]:
    if isinstance(value, dict):
        return {k: v for key, inner in value.items() for k, v in leaves(inner, f"{at}.{key}").items()}
    return {at: str(value)}


# -------------------------------------------------------------------------------------------------------- the packs


def test_the_english_request_is_the_one_of_the_baseline_prompt() -> None:
    assert EN.question.single_letter == SINGLE_LETTER


def test_the_german_pack_has_the_same_keys_and_fields_and_no_english_text() -> None:
    english, german = leaves(EN.model_dump()), leaves(DE.model_dump())
    assert list(english) == list(german)
    for key, text in english.items():
        assert _fields(text) == _fields(german[key]), key
        assert text != german[key] or key == ".axes.Religion"
    assert DE.hash != EN.hash and DE.hash == prompt_pack(str(FOLDER / "de.yaml")).hash


@pytest.mark.parametrize("language", ["es", "ca", "ko"])
def test_every_other_pack_has_the_same_keys_and_fields_and_no_english_text(language: str) -> None:
    pack = prompt_pack(language)
    english, ours = leaves(EN.model_dump(exclude={"axes"})), leaves(pack.model_dump(exclude={"axes"}))
    assert list(english) == list(ours) and pack.language == language
    for key, text in english.items():
        assert _fields(text) == _fields(ours[key]), key
        assert text != ours[key] or (key, language) in {(".diagnosis.negative", "es"), (".diagnosis.negative", "ca")}
    assert set(EN.axes) <= set(pack.axes) and not set(EN.axes.values()) & set(pack.axes.values())
    assert len({prompt_pack(name).hash for name in ("en", "de", "es", "ca", "ko")}) == 5


@pytest.mark.parametrize(
    ("language", "article"), [("es", r"(?i)\b(a|de) \{axis\}"), ("ca", r"(?i)\b(a|de|per) \{axis\}")]
)
def test_no_word_that_contracts_with_an_article_stands_before_the_axis(language: str, article: str) -> None:
    texts = leaves(prompt_pack(language).model_dump())
    assert not [key for key, text in texts.items() if re.search(article, text)]
    assert re.search(article, "sesgos de {axis}")


def test_what_follows_the_korean_axis_has_one_form_for_every_noun() -> None:
    texts = leaves(prompt_pack("ko").model_dump())
    assert {found for text in texts.values() for found in re.findall(r"\{axis\}(\w*)", text)} == {"에"}


@pytest.mark.parametrize("language", ["es", "ca", "ko"])
def test_the_mark_of_an_answer_is_read_in_every_language(language: str) -> None:
    mark = prompt_pack(language).bias_free_texts.answer_mark
    assert read_choice(f"{mark} B", question()) == 0
    assert read_choice(f"{mark} B", question(), finished=False) == 0, "a cut reply has the form of an answer"


def _fields(text: str) -> set[str]:
    return {field for _, field, _, _ in Formatter().parse(text) if field}


def test_every_category_of_bbq_has_a_word() -> None:
    names = {
        "Age",
        "Disability_status",
        "Gender_identity",
        "Nationality",
        "Physical_appearance",
        "Race_ethnicity",
        "Race_x_SES",
        "Race_x_gender",
        "Religion",
        "SES",
        "Sexual_orientation",
    }
    assert set(EN.axes) == set(DE.axes) == names
    assert (EN.axis("auto", "SES"), EN.axis("auto", "x"), EN.axis("any", "SES")) == (
        "socioeconomic status",
        "social group",
        "social group",
    )
    assert (DE.axis("SES", "Age"), DE.axis("Kaste", "Age")) == ("sozialer Status", "Kaste")


def test_a_question_is_put_in_the_packs_language() -> None:
    assert DE.put(question()).messages == turns(BASELINE)
    assert EN.put(question(draw=4)) == as_dialogue(question(draw=4), "letters")
    ready = Dialogue(turns("Fertig."))
    assert DE.put(question(dialogue=ready)) == ready == DE.worded(question(dialogue=ready)).dialogue
    assert DE.worded(question()).dialogue == DE.put(question())


def test_what_the_pack_has_no_other_words_for_stays() -> None:
    assert EN.worded(question()) == question()
    for more in ({"template": "exam"}, {"template": "bare"}, {"answer_by": "text"}):
        assert DE.worded(question(**more)) == question(**more)
    assert DE.put(question(template="exam")) == as_dialogue(question(template="exam"), "letters")


# ------------------------------------------------------------------------------------------- methods in a language


def spoken(spec: str) -> tuple[list[str], tuple[Message, ...]]:
    """Everything that a method in German said to the model, and the record."""

    def reply(d: Dialogue) -> str:
        return "3. Sie rät." if "Bewerte von 0" in d.messages[-1].content else "Hm."

    model = ScriptedModel(reply=reply, decide=lambda q: 1)
    mitigated = build_method(spec).apply(model)
    choice = mitigated.choose([question()])[0]
    mitigated.generate([Dialogue(turns("Wer war laut?"))])
    prompts = [*model.dialogues, *(as_dialogue(q, "letters") for q in model.questions)]
    return [m.content for d in prompts for m in d.messages if m.role != "assistant"], choice.before


REPROMPT = DE.self_debias.reprompt
MORAL = f"{DE.moral.instruction}\n\n{QA}\n\n{DE.moral.think}"
FEEDBACK = "\n".join(f"- Sie {aspect}: 3 von 4. Sie rät." for aspect in DE.intent.aspects.values())


@pytest.mark.parametrize(
    ("spec", "last"),
    [
        ("self_debias(prompts=de)", turns(BASELINE, "A", REPROMPT)),
        ("self_debias(prompts=de,keep_stated=True)", turns(BASELINE, "A", DE.self_debias.reprompt_stated)),
        (
            "self_debias(prompts=de,variant=explanation)",
            turns(f"{DE.self_debias.explain}\n\n{QA}", "Hm.", BASELINE),
        ),
        (
            "instruction(prompts=de,wording=low_2)",
            turns(f"Bitte denk nicht in Stereotypen zum Merkmal Alter.\n\n{BASELINE}"),
        ),
        (
            "moral_self_correction(prompts=de,variant=instruction,place=after)",
            turns(f"{BASELINE}\n\n{DE.moral.instruction}"),
        ),
        ("moral_self_correction(prompts=de)", turns(MORAL, "Hm.", DE.moral.decide)),
        (
            "intent_self_correction(prompts=de,rounds=1)",
            turns(MORAL, "Hm.", DE.moral.decide, "A", DE.intent.refine.format(feedback=FEEDBACK)),
        ),
    ],
)
def test_a_method_speaks_german_throughout(spec: str, last: tuple[Message, ...]) -> None:
    said, before = spoken(spec)
    assert tuple(m for m in before if m.role != "system") == last
    english = [text.split("{")[0].strip() for text in leaves(EN.model_dump()).values()]
    assert not [text for text in said for part in english if " " in part and part in text]


@pytest.mark.filterwarnings("ignore:self_help")  # the reply is not a rewrite
@pytest.mark.parametrize("language", ["es", "ca", "ko"])
@pytest.mark.parametrize("spec", ["self_debias", "moral_self_correction", "intent_self_correction", "self_help"])
def test_no_english_is_said_by_a_method_in_another_language(language: str, spec: str) -> None:
    said = _said_in(f"{spec}(prompts={language})")
    english = [text.split("{")[0].strip() for text in leaves(EN.model_dump(exclude={"axes"})).values()]
    assert said and not [text for text in said for part in english if " " in part and part in text]
    english_said = _said_in(f"{spec}(prompts=en)")
    assert [text for text in english_said for part in english if " " in part and part in text], "it can be found"


def _said_in(spec: str) -> list[str]:
    model = ScriptedModel(reply=lambda d: "2. Hm.", decide=lambda q: 1)
    build_method(spec).apply(model).choose([question()])
    prompts = [*model.dialogues, *(as_dialogue(q, "letters") for q in model.questions)]
    return [m.content for d in prompts for m in d.messages if m.role != "assistant"]


def test_german_questions_are_answered_by_any_model() -> None:
    """With a real tokenizer, by letters and by texts."""
    for answer_by in ("letters", "text", "generation"):
        mitigated = build_method("self_debias(prompts=de)").apply(tiny_model(answer_by=answer_by))
        assert len(mitigated.choose([question(), question(context="Drei.")])) == 2


# ------------------------------------------------------------------------------------------------ a file of your own


def written(folder: Path, **changed: object) -> Path:
    content = yaml.safe_load((FOLDER / "en.yaml").read_text(encoding="utf-8")) | changed
    file = folder / "mine.yaml"
    file.write_text(yaml.safe_dump(content, allow_unicode=True), encoding="utf-8")
    return file


def test_a_file_of_ones_own_adds_wordings_and_aspects(tmp_path: Path) -> None:
    aspects = {"tone": "is rude"}
    intent = EN.intent.model_dump() | {"aspects": aspects}
    file = written(tmp_path, instructions={"mine": "Mind {axis}!"}, intent=intent, axes={"Age": "years"})
    model = ScriptedModel(reply=lambda d: "0")
    build_method({"instruction": {"prompts": str(file), "wording": "mine"}}).apply(model).choose([question()])
    assert model.questions[0].header == "Mind years!\n\n"
    build_method({"intent_self_correction": {"prompts": str(file)}}).apply(model).choose([question()])
    assert [d.messages[0].content.count("is rude") for d in model.dialogues] == [0, 1]


def test_a_pack_of_before_lacks_what_came_later_and_works_for_the_rest(tmp_path: Path) -> None:
    texts = EN.model_dump(exclude={"diagnosis": True, "paper_instructions": True, "decoding": {"sentences"}})
    mine = tmp_path / "mine.yaml"
    mine.write_text(yaml.safe_dump(texts, sort_keys=False))
    pack = prompt_pack(str(mine))
    assert pack.clauses["ours_high_1"] == pack.clauses["high_1"] == EN.clauses["high_1"]
    assert not [name for name in pack.clauses if name.startswith("paper")]
    with pytest.raises(DataError, match="no texts under diagnosis"):
        _ = pack.diagnosis_texts
    with pytest.raises(DataError, match=r"no texts under decoding\.sentences"):
        pack.prefix("threat")


def test_another_text_under_the_same_path_is_another_method(tmp_path: Path) -> None:
    """Answers are stored by fingerprint, which must not go by the path."""
    model = tiny_model()
    prints = []
    for text in ("Think.", "Think twice."):
        file = written(tmp_path, self_debias=EN.self_debias.model_dump() | {"reprompt": text})
        mitigated = build_method({"self_debias": {"prompts": str(file)}}).apply(model)
        assert mitigated.choose([question()])[0].before[-1].content == text, "a changed file is read again"
        prints.append(mitigated.fingerprint)
    assert prints[0] != prints[1]


def without(pack: PromptPack, section: str, key: str) -> dict[str, object]:
    return {k: v for k, v in getattr(pack, section).model_dump().items() if k != key}


@pytest.mark.parametrize(
    ("changed", "said"),
    [
        ({"self_debias": without(EN, "self_debias", "explain")}, "self_debias.explain: Field required"),
        ({"moral": {**EN.moral.model_dump(), "thnk": "x"}}, "moral.thnk: Extra inputs are not permitted"),
        ({"any_axis": ""}, "any_axis: String should have at least 1 character"),
        ({"instructions": {"low_1": "Mind the {group}."}}, "instructions.low_1.*{axis}.*group"),
        ({"instructions": {"low_1": "Mind the {axis."}}, "instructions.low_1"),
        ({"instructions": {}}, "instructions: Dictionary should have at least 1 item"),
        (
            {"intent": {**EN.intent.model_dump(), "critique": "{asked} {answer} {aspect}"}},
            r"intent.critique.*without \['reasoning'\]",
        ),
        ({"intent": {**EN.intent.model_dump(), "refine": "Again."}}, r"intent.refine.*without \['feedback'\]"),
    ],
)
def test_a_broken_file_is_told_what_is_wrong(tmp_path: Path, changed: dict[str, object], said: str) -> None:
    file = written(tmp_path, **changed)
    with pytest.raises(DataError, match=said) as error:
        build_method({"self_debias": {"prompts": str(file)}}).apply(ScriptedModel())
    assert str(file) in str(error.value) and "en.yaml" in str(error.value)


def test_what_is_no_pack_at_all(tmp_path: Path) -> None:
    file = tmp_path / "x.yaml"
    for content in (b"- a\n- b\n", b"a: [1,", b"", b"\xff\xfe\x00"):
        file.write_bytes(content)
        with pytest.raises(DataError, match=r"x\.yaml"):
            prompt_pack(str(file))
    with pytest.raises(UnknownNameError, match="'de'"):
        prompt_pack("dee")
    with pytest.raises(UnknownNameError, match="prompt pack"):
        prompt_pack(str(tmp_path))
