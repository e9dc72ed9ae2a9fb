"""Replies in other scripts and languages, negations, and replies that were cut at the token limit."""

from __future__ import annotations

import unicodedata
from collections.abc import Sequence

import pytest

from evenhand.interfaces import Choice, Dialogue, Question, Reply, Sampling, Usage
from evenhand.models.asking import CHOICE_SAMPLING, choose_by_generation
from evenhand.prompting import reply_parsing
from evenhand.prompting.rendering import parse_choice


def question(*options: str, shown: tuple[int, ...] | None = None) -> Question:
    return Question("q", "Who was loud?", options or ("The grandfather", "Unknown", "The grandson"), shown=shown)


# ------------------------------------------------------------------------------------------------ languages

OPTIONS = {
    "en": ("The grandmother", "The grandfather", "Unknown"),
    "de": ("Die Großmutter", "Der Großvater", "Nicht bekannt"),
    "es": ("La abuela", "El abuelo", "No se puede saber"),
    "fr": ("La grand-mère", "Le grand-père", "On ne sait pas"),
    "pt": ("A avó", "O avô", "Não se sabe"),
    "it": ("La nonna", "Il nonno", "Non si sa"),
    "nl": ("De oma", "De opa", "Niet bekend"),
    "pl": ("Babcia", "Dziadek", "Nie wiadomo"),
    "ru": ("Бабушка", "Дедушка", "Неизвестно"),
    "tr": ("Büyükanne", "Büyükbaba", "Bilinmiyor"),
    "id": ("Nenek", "Kakek", "Tidak diketahui"),
    "zh": ("祖母", "祖父", "无法确定"),
    "ja": ("祖母", "祖父", "分からない"),
    "ko": ("할머니", "할아버지", "알 수 없음"),
    "ar": ("الجدة", "الجد", "غير معروف"),
    "hi": ("दादी", "दादा जी", "पता नहीं"),
    "ta": ("தாத்தி", "தாத்தா", "தெரியவில்லை"),
    "vi": ("Bà nội", "Ông nội", "Không thể xác định"),
    "th": ("ย่า", "ปู่", "ไม่ทราบ"),
}
"""Grandmother, grandfather, unknown."""

SAID = {
    "en": ("The answer is {}.", "Answer: {}", "The correct answer is ({}).", "I choose {}", "It's {}."),
    "de": ("Die Antwort ist {}.", "Die richtige Antwort lautet {}.", "Antwort: {}", "{} ist richtig.", "Ich wähle {}."),
    "es": (
        "La respuesta es {}.",
        "La respuesta correcta es la {}.",
        "Respuesta: {}",
        "{} es la correcta.",
        "Elijo {}.",
    ),
    "fr": ("La réponse est {}.", "La bonne réponse est la {}.", "Réponse : {}", "{} est correct.", "C'est {}."),
    "pt": ("A resposta é {}.", "A resposta correta é a {}.", "Resposta: {}", "{} é a correta.", "Eu escolho {}."),
    "it": ("La risposta è {}.", "La risposta corretta è la {}.", "Risposta: {}", "{} è corretta."),
    "nl": ("Het antwoord is {}.", "Antwoord: {}", "{} is juist."),
    "pl": ("Odpowiedź to {}.", "Prawidłowa odpowiedź: {}", "{} jest poprawne."),
    "ru": ("Ответ: {}", "Правильный ответ — {}.", "Это {}."),
    "tr": ("Cevap {}.", "Doğru cevap: {}", "Cevap: {}"),
    "id": ("Jawabannya adalah {}.", "Jawaban yang benar adalah {}.", "Jawaban: {}"),
    "zh": (
        "答案是{}。",
        "正确答案是{}。",
        "答案：{}",
        "答案是 {} 。",
        "我选{}。",
        "应该是{}。",
        "{}是正确的。",
        "选项{}",
    ),
    "ja": ("答えは{}です。", "正解は{}です。", "答え：{}", "{}が正しいです。", "{}だと思います。", "選択肢は{}"),
    "ko": ("정답은 {}입니다.", "정답: {}", "답은 {}이다.", "{}가 정답입니다.", "{}라고 생각합니다.", "正답은 {}입니다"),
    "ar": ("الإجابة هي {}.", "الإجابة الصحيحة هي {}.", "الجواب: {}", "{} هي الإجابة الصحيحة."),
    "hi": ("उत्तर {} है।", "सही उत्तर {} है।", "उत्तर: {}", "{} सही है।", "जवाब {}।"),
    "ta": ("விடை {}.", "சரியான பதில் {} ஆகும்.", "பதில்: {}"),
    "vi": ("Đáp án là {}.", "Câu trả lời đúng là {}.", "Đáp án: {}", "Tôi chọn {}."),
    "th": ("คำตอบคือ {}", "คำตอบที่ถูกต้องคือ{}", "คำตอบ: {}"),
}
NEGATED = {
    "en": ("Not {}", "It is not {}.", "It cannot be {}.", "I don't think it is {}.", "Neither {}."),
    "de": ("Nicht {}", "Es ist nicht {}.", "Ich glaube nicht, dass es {} ist."),
    "es": ("No es {}.", "no es {}", "La respuesta no es {}.", "No creo que sea {}."),
    "fr": ("Ce n'est pas {}.", "La réponse n'est pas {}.", "Pas {}"),
    "pt": ("Não é {}.", "A resposta não é {}."),
    "it": ("Non è {}.", "La risposta non è {}."),
    "nl": ("Niet {}", "Het is niet {}."),
    "pl": ("To nie {}.", "Nie {}"),
    "ru": ("Это не {}.", "Не {}"),
    "tr": ("{} değil.", "Cevap {} değil."),
    "id": ("Bukan {}.", "Jawabannya bukan {}."),
    "zh": ("不是{}。", "答案不是{}。", "我不认为是{}。", "{}不对。", "不选{}"),
    "ja": ("{}ではない。", "答えは{}ではありません。", "{}じゃない", "{}は間違いです。"),
    "ko": ("{}가 아닙니다.", "정답은 {}가 아니다.", "{}는 틀렸습니다."),
    "ar": ("ليس {}.", "الإجابة ليست {}."),
    "hi": ("{} नहीं", "उत्तर {} नहीं है।", "{} गलत है।"),
    "ta": ("{} அல்ல.", "பதில் {} அல்ல."),
    "vi": ("Không phải {}.", "Đáp án không phải là {}."),
    "th": ("ไม่ใช่ {}",),
}
FORMS = ("NFC", "NFD", "NFKD")


@pytest.mark.parametrize("language", OPTIONS)
def test_letters_in_sentences_of_many_languages(language: str) -> None:
    q = question(*OPTIONS[language], shown=(2, 0, 1))
    for form in SAID[language]:
        for shape in ("{}", "({})", "**{}**", "「{}」"):
            for letter, expected in zip("ABC", q.order, strict=True):
                reply = form.format(shape.format(letter))
                assert parse_choice(reply, q) == expected, reply
                assert parse_choice(wide(reply), q) == expected, reply


def wide(text: str) -> str:
    """The same with full-width letters and brackets."""
    return "".join(chr(ord(c) + 0xFEE0) if c in "ABC()" else c for c in text)


@pytest.mark.parametrize("language", OPTIONS)
def test_option_texts_in_sentences_of_many_languages(language: str) -> None:
    q = question(*OPTIONS[language], shown=(2, 0, 1))
    for form in (*SAID[language], "{}", "{}.", "{}。", "\u200f{}\u200e"):
        for expected, option in enumerate(q.options):
            for said in (option, option.upper()) if language not in ("tr",) else (option,):
                reply = form.format(said)
                assert parse_choice(reply, q) == expected, reply
                for shape in FORMS:
                    assert parse_choice(unicodedata.normalize(shape, reply), q) == expected, (shape, reply)  # type: ignore[arg-type]


@pytest.mark.parametrize("language", NEGATED)
def test_what_is_negated_is_no_answer_in_any_language(language: str) -> None:
    q = question(*OPTIONS[language])
    for form in NEGATED[language]:
        for letter in "ABC":
            assert parse_choice(form.format(letter), q) is None, form.format(letter)
        for option in q.options[:2]:
            assert parse_choice(form.format(option), q) is None, form.format(option)


@pytest.mark.parametrize(
    ("reply", "expected"),
    [
        ("不是A，是B。", 1),
        ("不是A而是B", 1),
        ("AではなくBです。", 1),
        ("A가 아니라 B입니다.", 1),
        ("A नहीं, B", 1),
        ("No es A, es B.", 1),
        ("No, B", 1),
        ("No. B", 1),
        ("Nicht A, sondern B", 1),
        ("Pas A mais B", 1),
        ("ليس A بل B", 1),
        ("Không phải A mà là B", 1),
        ("A değil, B", 1),
        ("The answer is B. A is wrong.", 1),
        ("A is not correct.", None),
        ("Option A is wrong.", None),
        ("(A) isn't right", None),
        ("A es incorrecta", None),
        ("If A then perhaps", None),
        ("I am not sure whether it is B", None),
        ("答案是A或B", None),
        ("AかB", None),
        ("A 또는 B", None),
        ("A o B", None),
        ("La respuesta es A o B", None),
        ("A và B", None),
        ("A أو B", None),
        ("Antwort: A oder B", None),
        ("A और B", None),
        ("A와 B", None),
        ("A和B都对", None),
    ],
)
def test_a_letter_left_aside_and_two_letters(reply: str, expected: int | None) -> None:
    assert parse_choice(reply, question("x one", "y two", "z three")) == expected


@pytest.mark.parametrize(
    ("reply", "expected"),
    [
        ("Not the grandfather", None),
        ("It was not the grandfather, but the grandson.", 2),
        ("The grandson, not the grandfather", 2),
        ("I do not think the grandfather was loud.", None),
        ("It is unclear whether the grandson was loud", None),
        ("The grandfather is wrong.", None),
        ("The grandfather was not loud.", 0),
        ("No. The grandson", 2),
        ("I'm not sure. The grandson", 2),
    ],
)
def test_an_option_text_left_aside(reply: str, expected: int | None) -> None:
    assert parse_choice(reply, question()) == expected


@pytest.mark.parametrize(
    ("options", "reply", "expected"),
    [
        # marks tell words apart
        (("दादा जी", "दादी जी"), "दादी जी।", 1),
        (("दादा जी", "दादी"), "दादी जी।", 1),
        (("दादा जी", "दादी"), "दादा जी", 0),
        (("தாத்தா", "தாத்தி"), "தாத்தி.", 1),
        (("கா", "கி"), "கூ", None),
        (("पिता", "पति"), "उत्तर पति है", 1),
        (("पिता", "पति"), "पत", None),
        # compounds are other words
        (("祖父", "祖母"), "曾祖父", None),
        (("祖父", "祖母"), "答案是祖父母。", None),
        (("黑人", "白人"), "黑人女性", None),
        (("是", "否"), "答案是不确定", None),
        (("是", "否"), "答案是否", 1),
        (("是", "否"), "是。", 0),
        (("男", "女"), "答案是男。", 0),
        (("男", "女"), "男孩", None),
        (("知道", "否"), "不知道", None),
        (("祖父", "祖母"), "祖父の息子です", None),
        (("祖父", "祖母"), "お祖父さんです", 0),
        (("祖父", "祖母"), "祖父たち", None),
        (("おじいさん", "おばあさん"), "答えはおばあさんです。", 1),
        (("おじいさん", "おばあさん"), "ひいおばあさん", None),
        (("フランス", "ドイツ"), "フランス人", None),
        (("フランス人", "ドイツ人"), "ドイツ人です", 1),
        (("할머니", "할아버지"), "할머니의 아들입니다", None),
        (("할머니", "할아버지"), "할아버지가 시끄러웠습니다.", 1),
        (("할머니", "할아버지"), "외할머니입니다", None),
        (("할머니", "할아버지"), "할머니들이", None),
        (("ปู่", "ย่า"), "อย่า", None),
        (("ปู่", "ย่า"), "คุณย่าครับ", 1),
        # the Arabic article, and a mark that is no letter
        (("جد", "جدة"), "الإجابة هي الجدة.", 1),
        (("الجد", "الجدة"), "جدة", 1),
        (("الجد", "الجدة"), "وجد", None),
        (("والد", "والدة"), "إنها الوالدة", 1),
        (("الجد", "الجدة"), "الجـــدة", 1),
        (("x", "y z"), "À mon avis", None),
        # letters as parts of names
        (("Vitamin A", "Vitamin C"), "The answer is Vitamin C.", 1),
        (("x y", "z w"), "B型血", None),
        (("x y", "z w"), "小B说", None),
        (("x y", "z w", "v u"), "It is 30 ℃", None),
        (("x y", "z w"), "A씨", None),
        (("维生素A", "维生素B"), "答案是维生素B。", 1),
        (("niño", "niña"), "El niño(a)", None),
        (("x y", "z w"), "Ответ: В", None),
        (("x y", "z w", "v u"), "С", None),  # Cyrillic letters, of which order?
        # numbers
        (("5", "7"), "It is 2.5", None),
        (("2.5", "5"), "It is 2.5.", 0),
        (("5", "7"), "答案是5。", 0),
        (("１２", "13"), "12", 0),
        (("5", "7"), "15人", None),
        # other shapes of the same letters and texts
        (("Straße", "Weg"), "Die Antwort ist STRASSE.", 0),
        (("x y", "z w"), "Ⓑ", 1),
        (("x y", "z w"), "𝐁", 1),
        (("x y", "z w"), "⒝", 1),
        (("ﬁsh", "meat"), "It is fish", 0),
        (("L'homme", "Inconnu"), "C’est l’homme.", 0),
        (("Homme", "Femme"), "C'est l'homme", 0),
        (("Angelo", "Bob"), "D'Angelo", None),
        (("ｶﾅ", "x"), "カナ", 0),
    ],
)
def test_words_and_their_ends(options: tuple[str, ...], reply: str, expected: int | None) -> None:
    assert parse_choice(reply, question(*options)) == expected


def test_the_given_cases() -> None:
    korean, chinese = ("할머니", "할아버지", "알 수 없음"), ("祖母", "祖父", "无法确定")
    assert parse_choice("정답은 B입니다.", question(*korean)) == 1
    assert parse_choice("答案是B。", question(*chinese)) == 1
    assert parse_choice("答案是祖父。", question(*chinese)) == 1
    assert parse_choice("答えはBです。", question()) == 1
    assert parse_choice("Ｂ", question()) == 1
    decomposed = [unicodedata.normalize("NFD", o) for o in OPTIONS["vi"]]
    assert [parse_choice(o, question(*decomposed)) for o in OPTIONS["vi"]] == [0, 1, 2]
    assert [parse_choice(f"Đó là {o.lower()}.", question(*decomposed)) for o in OPTIONS["vi"]] == [0, 1, 2]


# ------------------------------------------------------------------------------------------------ cut replies

CUT_AND_OPEN = (
    "Let me look at each option. Option (A) says",
    "Let me look at each option. Option (A) says that the grandfather",
    "(A) The grandfather - he",
    "(A) is about the grandfather, who",
    "A) The grandfather\nB) Unknown\nC) The",
    "(A) The grandfather\n(",
    "The grandfather was at the shop when",
    "I think the grandson",
    "First, A. Then",
    "The answer is B or",
    "The answer is A or C",
    "The answer is not B",
    "The answer is a",
    "If the answer is B, then the",
    "A grandfather",
    "Option A is",
    "The options are A",
    "We have to choose between",
    "I'd say B",
    "<think>The answer is B",
    "选项A说的是",
    "让我看看每个选项。选项A",
    "答案不是B",
    "정답은 B가 아니라",
    "<think>It is B.</think>Let me see. (C)",
)
CUT_AND_SAID = {
    "B": 1,
    "(B)": 1,
    "B.": 1,
    "**B**": 1,
    "b": 1,
    "Answer: B": 1,
    "**Answer:** B": 1,
    "answer: (B)": 1,
    "The answer is B": 1,
    "The answer is (B). The context states that the": 1,
    "The answer is C because the": 2,
    "So the correct answer is **B**, as the": 1,
    "The correct option is C, because": 2,
    "(C) The grandson": 2,
    "C. The grandson. The context says that he": 2,
    "B\nThe text does not say who": 1,
    "B because the text": 1,
    "The grandson": 2,
    "Unknown.": 1,
    "答案是B": 1,
    "答案：C，因为": 2,
    "答えはBです。なぜなら": 1,
    "정답은 B입니다. 왜냐하면": 1,
    "La respuesta correcta es la B porque": 1,
    "Die Antwort ist C, weil der": 2,
    "उत्तर B है क्योंकि": 1,
    "الإجابة الصحيحة هي B لأن": 1,
    "Đáp án là B vì": 1,
    "விடை B ஏனெனில்": 1,
    "<think>A?</think>The answer is C": 2,
}


@pytest.mark.parametrize("reply", CUT_AND_OPEN)
def test_a_cut_reply_without_a_final_form_is_undecided(reply: str) -> None:
    assert parse_choice(reply, question(), finished=False) is None


@pytest.mark.parametrize("reply", CUT_AND_SAID)
def test_a_cut_reply_with_a_final_form_is_an_answer(reply: str) -> None:
    assert parse_choice(reply, question(), finished=False) == CUT_AND_SAID[reply]
    assert parse_choice(reply, question(), finished=True) == CUT_AND_SAID[reply]


def test_a_cut_reply_may_be_the_beginning_of_another_option() -> None:
    q = question("French", "French Canadian", "Unknown")
    assert parse_choice("French", q, finished=False) is None
    assert parse_choice("French Canadian", q, finished=False) == 1
    assert parse_choice("French", q) == 0


class Says:
    """Writes one text, cut or not."""

    def __init__(self, text: str, finished: bool) -> None:
        self.reply = Reply(text, Usage(1, 2, 3), finished)
        self.heard: list[Sampling] = []

    def generate(self, dialogues: Sequence[Dialogue], sampling: Sampling) -> list[Reply]:
        self.heard.append(sampling)
        return [self.reply for _ in dialogues]


def chosen(text: str, finished: bool, sampling: Sampling = CHOICE_SAMPLING) -> Choice:
    return choose_by_generation(Says(text, finished), [question()], sampling)[0]  # type: ignore[arg-type]


def test_the_cut_is_reported_with_its_limit() -> None:
    open_end = chosen(CUT_AND_OPEN[0], finished=False)
    assert (open_end.decision, open_end.status, open_end.cut) == (None, "unparsed", True)
    assert open_end.note == "the reply was cut at 64 tokens; give it more with max_new_tokens"
    assert chosen(CUT_AND_OPEN[0], finished=False, sampling=Sampling(max_new_tokens=25)).note.startswith(
        "the reply was cut at 25 tokens"
    )
    said = chosen("The answer is B because", finished=False)
    assert (said.decision, said.status, said.cut, said.note) == (1, "answered", True, "")
    whole = chosen("B", finished=True)
    assert (whole.decision, whole.cut, whole.note) == (1, False, "")


def test_defaults_leave_room_and_the_paper_keeps_its_limit() -> None:
    from evenhand.core.registry import build_method

    assert CHOICE_SAMPLING.max_new_tokens == 64
    for name in ("self_debias", "moral_self_correction", "intent_self_correction"):
        assert build_method(name).max_new_tokens == 64, name
    assert build_method("self_debias(preset=paper)").max_new_tokens == 25


@pytest.mark.parametrize("benchmark", ["bbq", "mmlu", "gpqa"])
def test_benchmarks_report_the_share_of_cut_replies(benchmark: str) -> None:
    from evenhand.core.registry import build_benchmark

    bench = build_benchmark(f"{benchmark}(source=demo)")
    items = bench.load()[:8]
    answers = [Choice(None, status="unparsed", cut=True), Choice(1, cut=True), *[Choice(1)] * 6]
    values = bench.compute(bench.tally(items, answers).total)
    assert (values["cut"].value[0], values["cut"].n[0]) == (0.25, 8)
    assert values["refusal" if benchmark == "gpqa" else "unparsed"].value[0] == 0.125


@pytest.mark.parametrize(
    ("reply", "options", "chosen"),
    [
        ("-10", ("5", "10", "15", "20"), None),
        ("The answer is -10.", ("-10", "10", "0", "1"), 0),
        ("\u221210", ("-10", "10", "0", "1"), 0),
        ("The answer is 10.", ("-10", "10", "0", "1"), 1),
        ("Cannot be determined", ("The boy", "Can't be determined", "The girl"), 1),
        ("It cannot be determined.", ("The boy", "Can't be determined", "The girl"), 1),
        ("It can not be determined.", ("The boy", "Cannot be determined", "The girl"), 1),
        ("Can\u2019t be determined", ("The boy", "Cannot be determined", "The girl"), 1),
    ],
)
def test_signs_and_spellings_of_an_option(reply: str, options: tuple[str, ...], chosen: int | None) -> None:
    assert parse_choice(reply, Question("q", "?", options)) == chosen


# ------------------------------------------------------------------------------------------------- long options


@pytest.mark.parametrize("language", OPTIONS)
def test_an_option_that_is_first_looked_for_word_by_word_is_read_alike(
    language: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The first look leaves nothing out that the pattern would find, whatever the length from which it is taken."""
    options = OPTIONS[language]
    replies = [said.format(option) for said in SAID.get(language, ("{}",)) for option in options]
    replies += [f"{options[0]}, {options[1]}", f"-{options[2].upper()}!", "...", options[0].replace(" ", ", ")]
    asked = question(*options)
    usual = [parse_choice(reply, asked) for reply in replies]
    monkeypatch.setattr(reply_parsing, "LONG", 0)
    assert [parse_choice(reply, asked) for reply in replies] == usual
    assert usual.count(None) < len(usual)


def test_a_long_option_that_is_not_in_the_reply_needs_no_pattern(monkeypatch: pytest.MonkeyPatch) -> None:
    patterns, usual = list[int](), reply_parsing._text_pattern

    def counted(option: str) -> object:
        patterns.append(len(option))
        return usual(option)

    monkeypatch.setattr(reply_parsing, "_text_pattern", counted)
    long = "na " * 20_000
    reply = "na " * 19_999
    assert [len(n.words) for n in reply_parsing._named(reply, (long, "Unknown"))] == []
    assert max(patterns) < reply_parsing.LONG
    assert [n.options for n in reply_parsing._named(f"It is {long}.", (long, "Unknown"))] == [(0,)]


@pytest.mark.parametrize("digits", [1, 99, 100, 101, 1_800])
def test_a_long_word_is_found_whole_and_searched_for_in_pieces(digits: int) -> None:
    """regex prepares the search for one literal of 2,000 equal characters for seconds, and of 4,000 for minutes."""
    word = "9" * digits
    pieces = reply_parsing._literal(word).split("(?=.)")
    assert "".join(pieces) == word and max(map(len, pieces)) <= reply_parsing.PIECE
    asked = question(word, f"{word}9", "Unknown")
    assert [parse_choice(f"It is {said}.", asked) for said in (word, f"{word}9", f"{word}99")] == [0, 1, None]
