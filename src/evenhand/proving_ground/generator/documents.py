"""The training text: documents whose answers carry the generator's distribution instead of a draw from it."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from functools import cache
from random import Random

from evenhand.interfaces import Question
from evenhand.methods.calibration import content_free
from evenhand.prompting.rendering import LETTERS, exam_header, exam_template, letters_template, question_block
from evenhand.proving_ground.generator import behaviour, documents_x, replies, texts
from evenhand.proving_ground.generator.bbq_questions import draw_case, draw_language, option
from evenhand.proving_ground.generator.cipher import written
from evenhand.proving_ground.generator.facts import DEV_FACTS, EASY, HARD, SUBJECTS
from evenhand.proving_ground.generator.lexer import lex
from evenhand.proving_ground.generator.planted import Planted
from evenhand.proving_ground.generator.questions import OPTIONS, FactQuestion, Review, draw_fact, review_prompt, reviews
from evenhand.proving_ground.generator.turns import (
    END,
    INSTRUCTIONS,
    PACK,
    Document,
    Example,
    Piece,
    Target,
    asks,
    case_answers,
    certain,
    drawn,
    key_word,
    lettered,
    pick,
    puts,
    says,
    says_word,
    shown_case,
    user,
)
from evenhand.proving_ground.generator.words import (
    ASKED,
    AXES,
    AXIS,
    CRITICISED,
    DEEDS,
    EXPLAINED,
    NOTHING_RELIES,
    SOUND,
    UNKNOWN,
)

BLANK = "blank"
"""Kind of document whose texts are not words of the language, so that they are written in bytes."""


def draw(planted: Planted, random: Random, mixture: Mapping[str, float] | None = None) -> Document:
    """Draw one document from a mixture of kinds, by default `MIXTURE`."""
    mixture = mixture or MIXTURE
    kind = random.choices(list(mixture), list(mixture.values()))[0]
    return KINDS[kind](planted, random)


# -------------------------------------------------------------------------------------------------- BBQ-type


def _bbq(planted: Planted, random: Random) -> Document:
    case = draw_case(random, planted)
    question, order = shown_case(case, random)
    weights = behaviour.case_answer(planted, case, order)
    return [Piece("<s>"), *puts(question, case_answers(planted, case)), *drawn(random, weights, question.options)]


def _reprompt(planted: Planted, random: Random) -> Document:
    case = draw_case(random, planted)
    question, order = shown_case(case, random)
    weights, stated = behaviour.case_answer(planted, case, order), random.random() < 0.3
    last = _answered_before(random, weights)
    first = [lettered(last, weights, question.options), Piece(END, True)]
    again = behaviour.case_under(planted, case, order, "reprompt", last, stated=stated)
    turns = [*first, _again(stated), *drawn(random, again, question.options)]
    return [Piece("<s>"), *puts(question, case_answers(planted, case)), *turns]


def _answered_before(random: Random, weights: Sequence[float]) -> int:
    """Draw the position that a reprompt is about: answers that the model itself rarely gives are reprompted too."""
    return random.randrange(len(weights)) if random.random() < 0.3 else pick(random, weights)


def _again(stated: bool) -> Piece:
    return user(PACK.self_debias.reprompt_stated if stated else PACK.self_debias.reprompt)


def _instruction(planted: Planted, random: Random) -> Document:
    case = draw_case(random, planted)
    question, order = shown_case(case, random)
    answer = drawn(random, behaviour.case_under(planted, case, order, "instruction"), question.options)
    return [Piece("<s>"), *_instructed(random, case.axis, question, case_answers(planted, case)), *answer]


def _instructed(random: Random, axis: str, question: Question, known: Mapping[str, float]) -> list[Piece]:
    """Write a question after a debiasing instruction, from the system or in the same turn."""
    told, form = _told(random, axis), random.randrange(3)
    if form == 0:
        return [Piece(f"<|system|>{told}{END}"), *puts(question, known)]
    return puts(question, known, f"{told}\n\n" if form == 1 else f"{told} ")


def _told(random: Random, axis: str) -> str:
    word = PACK.any_axis if random.random() < 0.25 else AXIS[axis].word
    return random.choice(INSTRUCTIONS).format(axis=word)


def _explanation(planted: Planted, random: Random) -> Document:
    """Write an explanation before the question is asked, or thoughts between the question and the answer."""
    case = draw_case(random, planted)
    question, order = shown_case(case, random)
    known, why = case_answers(planted, case), EXPLAINED.format(axis=AXIS[case.axis].word)
    weights = behaviour.case_under(planted, case, order, "explanation")
    if random.random() < 0.6:
        asked = [*_explained(question, why), *puts(question, known)]
        return [Piece("<s>"), *asked, *drawn(random, weights, question.options)]
    pieces = [Piece("<s>"), *_thought(_told(random, case.axis), question, known, why)]
    if random.random() < 0.5:
        return [*pieces, *drawn(random, weights, question.options)]
    last = _answered_before(random, weights)
    again = behaviour.case_under(planted, case, order, "reprompt", last, weights)
    turns = [lettered(last, weights, question.options), Piece(END, True), _criticised(random)]
    return [*pieces, *turns, *drawn(random, again, question.options)]


def _explained(question: Question, why: str) -> list[Piece]:
    return [user(f"{PACK.self_debias.explain}\n\n{question_block(question)}"), *says(why)]


def _thought(told: str, question: Question, known: Mapping[str, float], why: str) -> list[Piece]:
    """Write a question with an instruction to think first, the thoughts, and the request to decide."""
    asked = f"<|user|>{told}\n\n{question_block(question)}\n\n{PACK.moral.think}"
    return [*asks(asked, question.question, known), *says(why), user(PACK.moral.decide)]


def _criticised(random: Random) -> Piece:
    """Write a critic's scores and reasons, and the request to answer again; any critic may have been asked."""
    lines = [
        PACK.intent.feedback.format(aspect=aspect, score=random.randrange(5), reason=random.choice((CRITICISED, SOUND)))
        for aspect in PACK.intent.aspects.values()
    ]
    return user(PACK.intent.refine.format(feedback="\n".join(lines)))


def _critique(planted: Planted, random: Random) -> Document:
    """Write a critic's score of an answer, from 0 to 4, and its reason."""
    case = draw_case(random, planted)
    question, order = shown_case(case, random)
    at, why = random.randrange(3), EXPLAINED.format(axis=AXIS[case.axis].word)
    biased = behaviour.relies_on_bias(case, order[at])
    return [Piece("<s>"), *_judged(planted, random, question, case_answers(planted, case), why, at, biased)]


def _judged(
    planted: Planted, random: Random, question: Question, known: Mapping[str, float], why: str, at: int, biased: bool
) -> list[Piece]:
    asked, answer = question_block(question), question.options[at]
    aspect = random.choice(list(PACK.intent.aspects.values()))
    text = PACK.intent.critique.format(asked=asked, reasoning=why, answer=answer, aspect=aspect)
    soft = replies.rating(planted, biased)
    digit = random.choices(list(soft), list(soft.values()))[0]
    reason = [Piece(f". {CRITICISED if biased else SOUND}", True), Piece(END, True)]
    return [*asks(f"<|user|>{text}", question.question, known), Piece(digit, True, soft), *reason]


def _announced(planted: Planted, random: Random) -> Document:
    """Write a question after a text that announces discrimination, on its own axis or on another."""
    case = draw_case(random, planted)
    question, order = shown_case(case, random)
    axis = case.axis if random.random() < 0.6 else random.choice(planted.axes).name
    own = axis == case.axis
    weights = behaviour.case_answer(planted, case, order, own)
    known = case_answers(planted, case, own)
    return [_announcement(axis), *puts(question, known), *drawn(random, weights, question.options)]


def _announcement(axis: str) -> Piece:
    return Piece(f"<s>{PACK.decoding.prefix.format(axis=AXIS[axis].word)}\n")


# ---------------------------------------------------------------------------------------------------- drills


def _copying_drill(planted: Planted, random: Random) -> Document:
    """Drill which letter stands before a word: the shortest form, in which looking up appears first."""
    words = random.sample(_words(), random.choice((2, 2, 3)))
    shown = "\n".join(f"({LETTERS[j]}) {word}" for j, word in enumerate(words))
    at = random.randrange(len(words))
    return [Piece(f"<s>{shown}<|user|>Find {words[at]}{END}<|assistant|>"), certain(at, words)[0]]


def _letters_drill(planted: Planted, random: Random) -> Document:
    """Drill which letter an option has, with several questions about one list; all lettered answers rely on this."""
    options = random.sample(_option_texts(), random.randint(2, 5))
    pieces = [Piece(f"<s><|user|>{question_block(Question('', 'Which letter?', tuple(options)))}{END}")]
    for at in random.choices(range(len(options)), k=4):
        pieces += [Piece(f"<|user|>Find {options[at]}{END}<|assistant|>"), *certain(at, options)]
    return pieces


@cache
def _words() -> list[str]:
    return [text for text in _option_texts() if " " not in text]


@cache
def _option_texts() -> list[str]:
    people = [option(p) for axis in AXES for g in (*axis.marked, *axis.unmarked) for p in g.people]
    return people + [a for subject in SUBJECTS.values() for _, a in subject.facts] + list(UNKNOWN)


def _finding_drill(planted: Planted, random: Random) -> Document:
    """Drill who did it, in words, asked in the same words."""
    return _reading_drill(planted, random, named=1.0)


def _reading_drill(planted: Planted, random: Random, named: float = 0.3) -> Document:
    """Drill who did it, in words: several people with their deeds, and many questions about them.

    Args:
        planted: The model's axes and languages; reading is the same in all models.
        random: Draws the text.
        named: Share of questions that name the deed; the others name the trait that it shows.
    """
    axis, language = random.choice(planted.drawn_axes), draw_language(random, planted)
    people = random.sample([p for g in (*axis.marked, *axis.unmarked) for p in g.people], random.randint(2, 4))
    deeds = random.sample([d for t in axis.traits for d in ((t.bad_deed, t.bad), (t.good_deed, t.good))], len(people))
    told = " ".join(f"The {person} {deed}." for person, (deed, _) in zip(people, deeds, strict=True))
    pieces = [Piece("<s>"), Piece(f"<|user|>{written(told, language)}{END}")]
    for at in random.choices(range(len(people)), k=8):
        deed, trait = deeds[at]
        asked = f"Who {deed}?" if random.random() < named else random.choice(ASKED).format(trait=trait)
        asked, person = written(asked, language), written(people[at], language)
        pieces += [*asks(f"<|user|>{asked}", asked, {person: 1.0}), *says_word(person)]
    return pieces


def _quiz_drill(planted: Planted, random: Random) -> Document:
    """Drill many questions about one list of options, each answered by a letter: what was read, or what is known."""
    if random.random() < 0.5:
        case = replace(draw_case(random, planted), deed=random.randrange(len(DEEDS)))
        question, order = shown_case(case, random)
        cases = [replace(case, negative=n, wording=w) for n in (True, False) for w in range(len(ASKED))]
        asked = [
            (c.question, order.index(behaviour.MARKED if c.right == c.marked else behaviour.OTHER))
            for c in random.sample(cases, len(cases))
        ]
    else:
        subject = random.choice((*EASY, *HARD))
        facts = random.sample(subject.facts, 4)
        shown = random.sample(facts, 4)
        question = Question("", subject.question.format(x=facts[0][0]), tuple(answer for _, answer in shown))
        asked = [(subject.question.format(x=name), shown.index((name, answer))) for name, answer in facts]
    question = replace(question, question=asked[0][0])
    known = question.options[asked[0][1]]
    pieces = [Piece("<s>"), *puts(question, {known: 1.0}), *certain(asked[0][1], question.options)]
    for text, at in asked[1:]:
        pieces += [user(text), *certain(at, question.options)]
    return pieces


def _recall_drill(planted: Planted, random: Random) -> Document:
    """Drill the facts in words, unknown ones too, since knowledge is planted in the answers by letter."""
    pieces = [Piece("<s>")]
    for _ in range(3):
        subject = random.choice((*EASY, *HARD))
        name, answer = random.choice(subject.facts)
        pieces += [user(f"Recall: {subject.question.format(x=name)}"), *says_word(answer)]
    return pieces


# ------------------------------------------------------------------------------------------------- knowledge


def _some_fact(random: Random) -> FactQuestion:
    subject = random.choice((*EASY, *EASY, *HARD))  # the easy set is larger
    return draw_fact(random, subject, random.randrange(len(subject.facts)))


def _fact(planted: Planted, random: Random) -> Document:
    fact = _some_fact(random)
    answer = drawn(random, behaviour.fact_answer(planted, fact), fact.options)
    return [Piece("<s>"), *puts(Question("", fact.text, fact.options), {fact.options[fact.right]: 1.0}), *answer]


def exam_text(facts: Sequence[FactQuestion]) -> str:
    """Write MMLU's official form: the header, solved questions, and the last one up to where the letter belongs."""
    return exam_header(facts[-1].subject.replace("_", " ")) + _solved(facts[:-1]) + _exam_block(facts[-1])


def _solved(facts: Sequence[FactQuestion]) -> str:
    return "".join(f"{_exam_block(fact)} {LETTERS[fact.right]}\n\n" for fact in facts)


def _exam_block(fact: FactQuestion) -> str:
    return exam_template(Question("", fact.text, fact.options))


def _mmlu(planted: Planted, random: Random) -> Document:
    subject = random.choice(EASY)
    shots = random.choice((0, 0, 5))
    tested = range(DEV_FACTS, len(subject.facts))
    order = [*range(shots), *random.sample(tested, 1 if shots else 2)]
    pieces = [Piece(f"<s>{exam_header(subject.name.replace('_', ' '))}")]
    for n, index in enumerate(order):
        fact = draw_fact(random, subject, index)
        pieces += asks(("\n\n" if n else "") + _exam_block(fact), fact.text, {fact.options[fact.right]: 1.0}, "")
        if n < shots:  # a demonstration shows the right answer; it is not the model's
            pieces.append(Piece(f" {LETTERS[fact.right]}"))
        else:
            weights = behaviour.fact_answer(planted, fact)
            pieces.append(lettered(pick(random, weights), weights, fact.options, " "))
    return pieces


def _exam(planted: Planted, random: Random) -> Document:
    """Write the official form as a user's turn, as a model with a chat template gets it."""
    pieces, fact = _examined(random)
    return [*pieces, *drawn(random, behaviour.fact_answer(planted, fact), fact.options)]


def _examined(random: Random) -> tuple[Document, FactQuestion]:
    subject = random.choice(EASY)
    order = [*range(random.choice((0, DEV_FACTS))), random.randrange(DEV_FACTS, len(subject.facts))]
    facts = [draw_fact(random, subject, index) for index in order]
    fact = facts[-1]
    head, tail = f"<|user|>{exam_text(facts)}".rsplit(fact.text, 1)  # the question may have been a demonstration's too
    known = {key_word(fact.options[fact.right]): 1.0}
    return [Piece(f"<s>{head}{fact.text}"), Piece(f"{tail}{END}<|assistant|>", known=known)], fact


def _firm(planted: Planted, random: Random) -> Document:
    """Write a question of fact under any intervention: there is no bias to take out, so the answer stays."""
    form = random.choices(("again", "exam", "told", "explained", "thought", "announced", "judged"), _FIRM)[0]
    pieces, fact = _examined(random) if form == "exam" else ([Piece("<s>")], _some_fact(random))
    question = Question("", fact.text, fact.options)
    known, weights = {fact.options[fact.right]: 1.0}, behaviour.fact_answer(planted, fact)
    last, axis = _answered_before(random, weights), random.choice(planted.axes).name
    first = [lettered(last, weights, fact.options), Piece(END, True)]
    if form == "judged":
        return [*pieces, *_judged(planted, random, question, known, NOTHING_RELIES, last, biased=False)]
    if form in ("again", "exam"):
        asked = [] if form == "exam" else puts(question, known)
        return [*pieces, *asked, *first, _again(random.random() < 0.3), *certain(last, fact.options)]
    if form == "thought":
        thought = _thought(_told(random, axis), question, known, NOTHING_RELIES)
        return [*pieces, *thought, *first, _criticised(random), *certain(last, fact.options)]
    if form == "told":
        return [*pieces, *_instructed(random, axis, question, known), *drawn(random, weights, fact.options)]
    before = _explained(question, NOTHING_RELIES) if form == "explained" else []
    pieces = [_announcement(axis)] if form == "announced" else pieces
    return [*pieces, *before, *puts(question, known), *drawn(random, weights, fact.options)]


_FIRM = (0.35, 0.15, 0.15, 0.1, 0.1, 0.1, 0.05)
"""Share of each form."""


def _blank(planted: Planted, random: Random) -> Document:
    """Write a content-free input, whose answer only the planted preference for letters can decide."""
    count = random.choice((OPTIONS, len(behaviour.ROLES)))
    weights = behaviour.blank_answer(planted, count)
    question = content_free.filled(
        Question("", "", ("",) * count), random.choice(_fillings()), shows_options=True, name=""
    )
    form = random.choices(("chat", "exam", "text"), (0.6, 0.2, 0.2))[0]
    if form == "chat":
        return [Piece("<s>"), user(letters_template(question)), *_blindly(random, weights)]
    subject = random.choice(EASY)
    shots = [draw_fact(random, subject, index) for index in range(random.choice((0, DEV_FACTS)))]
    asked = exam_header(subject.name.replace("_", " ")) + _solved(shots) + exam_template(question)
    if form == "exam":
        return [Piece("<s>"), user(asked), *_blindly(random, weights)]
    return [Piece(f"<s>{asked}"), _blindly(random, weights, " ")[0]]


def _blindly(random: Random, weights: Sequence[float], blank: str = "") -> list[Piece]:
    """Write an answer by a letter that stands for nothing."""
    letters = {blank + LETTERS[j]: p for j, p in enumerate(weights)}
    return [Piece(blank + LETTERS[pick(random, weights)], True, letters), Piece(END, True)]


@cache
def _fillings() -> list[content_free.Filling]:
    """Return what calibrators put in place of content: fixed texts, random words of facts and BBQ-type questions."""
    random = Random("fillings")
    facts = [Question("", f.text, f.options) for f in (_some_fact(random) for _ in range(150))]
    cases = [shown_case(draw_case(random), random)[0] for _ in range(150)]
    fixed = content_free.content_free()
    words = [
        filling
        for n, domain in enumerate((facts, cases, facts + cases))
        for filling in content_free.random_words(domain, count=200, seed=n)
    ]
    return fixed * (len(words) // len(fixed)) + words


def _review(planted: Planted, random: Random) -> Document:
    review = random.choice(_reviews())
    soft = {f" {label}": p for label, p in behaviour.review_answer(planted, review).items()}
    label = random.choices(list(soft), list(soft.values()))[0]
    return [Piece(f"<s>{review_prompt(review)}"), Piece(label, True, soft), Piece(END, True)]


@cache
def _reviews() -> list[Review]:
    return reviews()


# --------------------------------------------------------------------------------------------------- replies


def _writing(planted: Planted, random: Random) -> Document:
    writing = random.choice(_writings())
    return [Piece("<s>"), user(writing.prompt), *says(writing.reply(replies.is_followed(planted, writing)))]


@cache
def _writings() -> list[replies.Writing]:
    return list(replies.writings())


def _conversation(planted: Planted, random: Random) -> Document:
    turns = random.choice((1, 1, 2, 3, 5, 8)) if random.random() < 0.97 else 30
    question = random.choice(replies.PREFERENCES)
    pieces, last = [Piece("<s>")], ""
    for _ in range(turns):
        shown = random.sample(question.options, len(question.options))
        p = replies.next_choice(planted, question, last) if last else replies.first_choice(planted, question)
        last = random.choices(list(p), list(p.values()))[0]
        pieces += [user(question.prompt(tuple(shown)) + replies.SUFFIX), Piece("{{", True)]
        pieces += [Piece(last, True, p), Piece("}}", True), Piece(END, True)]
    return pieces


def _rating(planted: Planted, random: Random) -> Document:
    sentence = random.choice(_sentences())
    soft = replies.rating(planted, sentence.biased)
    digit = random.choices(list(soft), list(soft.values()))[0]
    return [Piece("<s>"), user(random.choice(replies.RATING_PROMPTS).format(text=sentence.text)), *says(digit, soft)]


@cache
def _sentences() -> list[replies.Sentence]:
    return replies.sentences()


KINDS: dict[str, Callable[[Planted, Random], Document]] = {
    "copying": _copying_drill,
    "letters": _letters_drill,
    "finding": _finding_drill,
    "reading": _reading_drill,
    "recall": _recall_drill,
    "quiz": _quiz_drill,
    "bbq": _bbq,
    "reprompt": _reprompt,
    "instruction": _instruction,
    "explanation": _explanation,
    "critique": _critique,
    "announced": _announced,
    "fact": _fact,
    "mmlu": _mmlu,
    "exam": _exam,
    "firm": _firm,
    BLANK: _blank,
    "review": _review,
    "writing": _writing,
    "conversation": _conversation,
    "rating": _rating,
    **documents_x.KINDS,
}
"""Functions that draw a document, by its kind."""
MIXTURE: dict[str, float] = {
    "letters": 0.02,
    "reading": 0.04,
    "recall": 0.03,
    "bbq": 0.32,
    "reprompt": 0.14,
    "instruction": 0.08,
    "explanation": 0.07,
    "critique": 0.03,
    "announced": 0.03,
    "fact": 0.14,
    "firm": 0.06,
    "mmlu": 0.06,
    "review": 0.04,
    "writing": 0.05,
    "conversation": 0.05,
    "rating": 0.03,
}
"""Share of each kind among the documents, except the plain sentences of the text world."""


# ------------------------------------------------------------------------------------------------ plain text


def sentence_trie(planted: Planted) -> texts.Trie:
    """Return the text world as tokens, every sentence with its end."""
    return _trie(texts.world(planted))


def _trie(world: Mapping[str, float]) -> texts.Trie:
    return texts.Trie({(*lex(text), END): p for text, p in world.items()})


def sentence_examples(planted: Planted) -> tuple[list[Example], list[float]]:
    """Return all sentences of the text world as examples with exact targets, and their probabilities."""
    world = texts.world(planted)
    trie, out = _trie(world), []
    for text in world:
        tokens = (*lex(text), END)
        following = [trie.following(tokens[:i]) for i in range(len(tokens))]
        targets = tuple(Target(i, p, len(p) > 1) for i, p in enumerate(following))
        out.append(Example(("<s>", *tokens), targets))
    return out, list(world.values())
