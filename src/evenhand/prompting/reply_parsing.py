"""How the text of a reply becomes the answer to a multiple-choice question, in many languages.

Texts are compared after compatibility normalisation and case folding (Unicode Standard Annex 15, NFKC; section 3.13,
default caseless matching), with combining marks kept: a vowel sign of Hindi or Tamil tells words apart. Where a word
ends is decided by Unicode properties (Unicode Standard Annex 29). Scripts that are written without spaces (Han, kana,
Thai) have no visible word boundary, and Korean attaches particles: there an option or a letter counts only next to
punctuation or to a word of a short list, so that 祖父 is not found in 祖父母; anything else is undecided.
"""

from __future__ import annotations

import string
import unicodedata
from bisect import bisect_left, bisect_right
from collections.abc import Sequence
from functools import lru_cache
from itertools import pairwise
from operator import attrgetter
from typing import Any, NamedTuple

import regex

from evenhand.interfaces import Question

LETTERS = string.ascii_uppercase
POISON = "?"
"""Placeholder for an option that is named but doubted or rejected; if it occurs, nothing is decided."""


def normal_form(text: str) -> str:
    """Return the text in compatibility normal form, without invisible characters (direction marks, soft hyphens)."""
    plain = regex.sub(r"[\p{Cf}\uFE00-\uFE0F\u0640]+", "", text).replace("\u2212", "-")  # the minus sign
    return unicodedata.normalize("NFKC", plain).strip()


def read_choice(text: str, question: Question, finished: bool = True) -> int | None:
    """Read the identity of the chosen option from a reply without its <think> blocks.

    These are tried in order: the whole reply is one option's text or one letter; letters that are marked as an answer
    ("(B)", "B)", "answer: B", "答案是B"); lone capitals other than the words "A" and "I"; a single option's text inside
    the reply. Two different letters, or two options' texts, are not an answer, nor is a negated one ("not B",
    "no es B", "不是B").

    A reply that was cut at the token limit might have continued with something else. It counts only if it already has
    the form of an answer; see `_final`.

    Args:
        text: What the model wrote.
        question: What was asked, with the shown order of its options.
        finished: Whether the reply ended by itself.

    Returns:
        The option's identity, or None if the reply is unparsed (a refusal, nothing, or more than one answer).
    """
    text = normal_form(text)
    if not text:
        return None
    whole = _whole(text, question.options)
    if whole is not None:
        return None if not finished and _begins_another(text, whole, question.options) else whole
    last = LETTERS[len(question.options) - 1] if len(question.options) <= len(LETTERS) else LETTERS[-1]
    if not finished:
        letter = _final(text, last, question)
        return None if letter is None else question.option_at(LETTERS.index(letter))
    named = _named(text, question.options)
    letters = _letters(text, last, named)
    if letters:
        letter = letters.pop()
        return None if letters or letter == POISON else question.option_at(LETTERS.index(letter))
    return _text_inside(text, named)


def _whole(text: str, options: Sequence[str]) -> int | None:
    """Return the option whose text is the whole reply; None if there is none, or several."""
    exact = [o for o, option in enumerate(options) if normal_form(option).casefold() == text.casefold()]
    bare = _words(text)
    equal = exact or [o for o, option in enumerate(options) if bare and _words(normal_form(option)) == bare]
    return equal[0] if len(equal) == 1 else None


def _begins_another(text: str, whole: int, options: Sequence[str]) -> bool:
    """Whether a cut reply, which is the text of one option, may be the beginning of another one's."""
    bare = _words(text)
    return any(o != whole and _words(normal_form(option)).startswith(bare) for o, option in enumerate(options))


_NUMBER = r"(?:(?<!\w)-)?\d+(?:[.,]\d+)+|(?<!\w)-\d+\b"
"""Numbers that are one word although they contain a sign or a decimal mark; whole numbers are words anyway."""


def _words(text: str) -> str:
    """Return the words of a text for comparison: case folded, without apostrophes and punctuation; -2.5 is one word."""
    folded = unicodedata.normalize("NFKC", regex.sub(r"['’‘ʼ]", "", text).casefold())
    return " ".join(regex.findall(rf"{_NUMBER}|\w+", regex.sub(r"\bcan ?not\b", "cant", folded)))


# ------------------------------------------------------------------------------------------------ the words

_SPACELESS = r"\p{Han}\p{Hiragana}\p{Katakana}ー"
_GLUED = _SPACELESS + r"\p{Hangul}"
_OPEN = r"[\s*_\"'`“‘«「『【〔《〈(\[{\\]*"
_CLOSE = r"[*_\"'`”’»」』】〕》〉)\]}]*"


def _any(*words: str) -> str:
    """Write a pattern for any of the words, in normal form as replies are."""
    listed = [w for line in words for w in normal_form(line).split("|")]
    return "(?:" + "|".join(sorted(listed, key=len, reverse=True)) + ")"


_ANSWER = (
    r"(?:\b"
    + _any(
        r"answer|antwort|lösung|respuesta|réponse|resposta|risposta|antwoord|odpowiedź|odpowiedzią|ответ|cevap|yanıt",
        r"jawaban|jawabannya|đáp\s+án|câu\s+trả\s+lời",
    )
    + r"\b|"
    + _any("答案|答え|解答|回答|正解|정답|답변|답|正答|الإجابة|الاجابة|الجواب|جواب|उत्तर|जवाब|விடை|பதில்|คำตอบ|উত্তর")
    + ")"
)
_OPTION = (
    r"(?:\b"
    + _any(
        r"option|choice|wahl|auswahl|opción|alternativa|choix|opção|opzione|optie|вариант|seçenek|pilihan|opsi",
        r"lựa\s+chọn|phương\s+án",
    )
    + r"\b|"
    + _any("选项|選項|選択肢|선택지|الخيار|विकल्प|தேர்வு|ตัวเลือก|ข้อ")
    + ")"
)
_ADJECTIVE = (
    r"(?:\s+"
    + _any(
        r"correcta|correcte|correct|correta|corretta|giusta|juste|certa|exacta|exacte|richtige|right|yang\s+benar",
        r"yang\s+tepat|đúng\s+nhất|đúng|chính\s+xác|الصحيحة|الصحيح|सही|சரியானது",
    )
    + r"(?!\w))*"
)
_COPULA = (
    r"(?:\s*[*_]*(?:"
    + _any(
        r"\bis\b|['’]s\b|\bist\b|\blautet\b|\bwäre\b|\bwould\s+be\b|\bes\b|\bsería\b|\best\b|\bserait\b|\bé\b|\bseria\b",
        r"\bè\b|\bsarebbe\b|\badalah\b|\bialah\b|\blà\b|\bto\b|\bjest\b|\bэто\b|هي|هو|是|应该是|應該是|为|為|は|은|는|คือ",
    )
    + r"|[=\-–—])[*_]*)"
)
_COLON = r"(?:\s*(?:[*_]+\s*)?[:：][*_]*)"
_ARTICLE = (
    r"(?:\s*\b(?-i:the|la|el|le|die|der|das|a|o|il|de|het|letter|letra|lettre|lettera|Buchstabe|l['’])\b"
    rf"|\s*{_OPTION}){{0,16}}"
)
"""What may precede a letter; `_OPEN` matches the blanks after it, since two patterns of blanks take quadratic time."""
_LETTER_FORM = rf"{_OPEN}([A-Za-z])"
_BEFORE_LETTER = (
    r"(?<![\p{Latin}\p{Greek}\p{Cyrillic}\p{N}_'’°])"
    rf"(?:(?<![{_GLUED}])|(?<=[是为為选選择擇项項案答即就则則对對或和与與及还還はがもをでとにやかのく肢番은는이가만와과나]))"
)
_AFTER_LETTER = (
    r"(?![\p{Latin}\p{Greek}\p{Cyrillic}\p{N}\p{M}_]|['’]\w)"
    rf"(?:(?![{_GLUED}])|(?="
    + _any(
        "是|为|為|项|項|选|選|最|正确|正確|更|对|對|吧|或|和|与|與|及|还|還|不|错|錯|并|並|可能|应|應|符合|才|都|也",
        "です|だ|が|は|を|と|で|に|も|か|や|の方|のほう|より|じゃ|ま|番|選",
        "입니다|이다|이에요|예요|에요|이며|이고|이라|라|가|이|은|는|를|을|번|로|으로|와|과|나|도|만|임|요|또는|혹은",
    )
    + r"))"
)
_ANSWER_IS = regex.compile(
    rf"(?:{_ANSWER}|{_OPTION}){_ADJECTIVE}{_COPULA}?{_COLON}?{_ARTICLE}{_LETTER_FORM}{_AFTER_LETTER}",
    regex.I,
)
_FINAL_ANSWER = regex.compile(
    rf"(?:{_ANSWER}{_ADJECTIVE}(?:{_COPULA}?{_COLON}|{_COPULA})"
    rf"|{_OPTION}{_ADJECTIVE}{_COPULA}"
    rf"|{_any('उत्तर|जवाब|விடை|பதில்')}\s){_ARTICLE}{_LETTER_FORM}{_AFTER_LETTER}",
    regex.I,
)
"""An explicit answer; "option A says ..." is not one. Hindi and Tamil put the copula last or leave it out."""
_BRACKETED = regex.compile(
    r"(?<![\p{Latin}\p{M}])\(([A-Za-z])\)|(?:^|\s)([A-Za-z])\)|\[([A-Za-z])\]|\*\*([A-Za-z])\*\*"
    r"|[「『【〔《〈]([A-Za-z])[」』】〕》〉]"
)
_LONE_CAPITAL = regex.compile(rf"{_BEFORE_LETTER}([A-Z]){_AFTER_LETTER}(?!['’])")
_OR = (
    r"(?:(?=[^\w/&+]*+[/&+])\W++|\W*+(?:\b(?:or|and|oder|und|y|o|ou|et|e|of|en|atau|dan|hoặc|và|hay|veya|ve|или|и|lub|i)\b"
    r"|或者?|还是|還是|和|与|與|及|または|か|や|と|또는|혹은|이나|나|와|과|أو|و|या|और|அல்லது|"
    rf"{normal_form('หรือ')}))"
)
_JOINED = regex.compile(_OR, regex.I)
_ALSO = regex.compile(rf"{_OR}\W*([A-Za-z]){_AFTER_LETTER}")
_FILLER = (
    r"(?:(?:the|be|likely|necessarily|option|answer|choice|letter|correct|right|die|der|das|antwort|richtige|la|el|le|"
    r"opción|respuesta|réponse|(?-i:[ao])|opção|resposta|il|opzione|risposta|de|het|optie|antwoord|jawaban|pilihan|là|"
    r"(?:đáp|phương)\s+án|lựa\s+chọn|câu\s+trả\s+lời|الخيار|الإجابة|هي|هو)\s+|l['’]|选项|選項|答案)*"
)
_NEGATED = regex.compile(
    r"(?:"
    r"(?:\b(?:can)?not|\b(?:nor|neither|never|rather\s+than|instead\s+of)|n['’]t)\s+"
    r"|\b(?:nicht|keine?|weder|noch|pas|jamais|plutôt\s+que|niet|geen|bukan(?:lah)?|tidak)\s+"
    r"|\b(?:no|ni|tampoco)[ \t]+(?:(?:es|era|fue|sea|sería|puede\s+ser|elijo|elegiría)\s+)?"
    r"|\b(?:não|nem|nunca)\s+(?:(?:é|era|foi|seja|seria|pode\s+ser)\s+)?"
    r"|\b(?:non|né)[ \t]+(?:(?:è|era|sia|sarebbe|può\s+essere)\s+)?"
    r"|\b(?:nie|ani)\s+(?:jest\s+|to\s+)?|\b(?:не|ни)\s+(?:является\s+)?"
    r"|\b(?:không|chẳng)\s+(?:phải\s+)?(?:chọn\s+)?"
    r"|(?:不是|并非|並非|不会是|不會是|不可能是|不应该?是|不應該?是|不该选|不選|不选|没有?选|沒有?選|不为|不為|绝非)\s*"
    r"|(?<!\w)و?(?:ليس|ليست|لا|غير)\s+"
    r"|ไม่ใช่\s*"
    rf"){_FILLER}[ \t*_\"'`“‘«「『【《(\[{{\\]*\Z",
    regex.I,
)
"""Negation before an option that is ruled out. "No, B" and "not sure. B" do not count."""
_NEGATED_AFTER = regex.compile(
    rf"{_CLOSE}(?:(?:で|では|じゃ)\s*(?:な|ありません)|번?(?:이|가|은|는)?\s*(?:아니|아닙|아녜|아님)"
    r"|\s*(?:नहीं|அல்ல|இல்லை|değil))"
)
"""Negation after an option, in languages that put it there: "Bではなく", "B가 아니라", "B नहीं"."""
_DOUBTED = regex.compile(
    r"(?:(?:\bnot|n['’]t)\s+(?:think|believe|say|choose|pick|select|agree)\b|\b(?:whether|if|ob|unless|suppose)\b"
    r"|\bnicht,?\s+dass\b|\bpas\s+que\b|\b(?:no|não)\s+(?:creo|pienso|diría|acho|creio|acredito)\s+que\b"
    r"|\bnon\s+(?:credo|penso)\s+che\b|不(?:认为|認為|觉得|覺得|相信)|如果|是否|もし|만약)[^.!?;,。！？，；\n]{0,60}\Z",
    regex.I,
)
_REJECTED = regex.compile(
    rf"{_CLOSE}\s*(?:"
    r"(?:(?:is|was|would|can|could)\s*(?:not\b|n['’]t)|cannot\b"
    r"|(?:is|was)\s+(?:\w+ly\s+)?(?:wrong|incorrect|false|ruled\s+out|excluded|eliminated))"
    r"|(?:ist|wäre|stimmt|kann)\s+(?:es\s+)?(?:nicht|falsch)\b|no\s+(?:es|puede|era|sería)\b"
    r"|es\s+(?:incorrect|fals|erróne)|n['’](?:est|était)\s+pas\b|est\s+(?:faux|fausse|incorrect)"
    r"|não\s+(?:é|pode)|(?:é|está)\s+(?:incorret|fals|errad)|non\s+(?:è|può)|è\s+(?:sbagliat|errat|fals)"
    r"|is\s+(?:niet|fout|onjuist)|nie\s+jest|не\s|неверн|неправильн"
    r"|(?:选项|項|项)?\s*(?:不是|不对|不對|不正确|不正確|并非|是?错|是?錯|不符合|不可能)"
    r"|(?:は|が)\s*(?:違|誤|間違|不正解)|번?(?:은|는|이|가)\s*(?:틀|오답)"
    r"|(?:है\s*)?(?:गलत|ग़लत)|தவறு|(?:ليس|ليست|غير|خطأ|خاطئ)|không\s+(?:phải|đúng)|(?:là\s+)?sai\b"
    r"|(?:bukan|salah)\b|yanlış|ไม่ใช่|ผิด)",
    regex.I,
)
_TEXT_REJECTED = regex.compile(
    rf"{_CLOSE}\s*(?:(?:is|was)\s+(?:\w+ly\s+)?(?:wrong|incorrect|false|ruled\s+out)"
    r"|(?:is|was)(?:\s+not|n['’]t)\s+(?:the\s+)?(?:correct|right|answer)|ist\s+(?:falsch|nicht\s+(?:die\s+)?richtig)"
    r"|(?:no\s+)?es\s+(?:incorrect|fals)|no\s+es\s+(?:la\s+)?(?:respuesta|correct)|est\s+(?:faux|fausse|incorrect)"
    r"|n['’]est\s+pas\s+la\s+(?:bonne\s+)?réponse|não\s+é\s+a\s+resposta|(?:不对|不對|不正确|不正確|是?错|是?錯)"
    r"|(?:不是|并非)(?:正确)?答案|(?:は|が)\s*(?:違|誤|間違|不正解)|(?:은|는|이|가)\s*(?:틀|오답)|है\s*गलत|गलत|தவறு|خطأ)",
    regex.I,
)
"""Narrower form of `_REJECTED` for texts: "The boy was not loud" answers the question who was not."""


def _denial(text: str, start: int, end: int, named: Sequence[_Named] = (), rejected: Any = _REJECTED) -> str | None:
    """Return whether an option is denied: "ruled out" if negated, POISON if doubted or rejected, else None."""
    head = text[max(0, start - 80) : start]
    if _NEGATED.search(head) or _NEGATED_AFTER.match(text, end):
        return "ruled out"
    if _DOUBTED.search(head):
        return POISON
    no = rejected.match(text, end)
    if not no:
        return None
    # "B) Cannot be determined" names an option; "B cannot be right" says something of one
    said = no[0].lstrip("*_\"'`”’»」』】〕》〉)]} \t\n")
    label = said[:1].isupper() or (text[end : end + 1] == ")" and text[max(0, start - 1) : start] != "(")
    at = bisect_left(named, end, key=_begin)
    return None if label or (at < len(named) and named[at].start < no.end()) else POISON


# ------------------------------------------------------------------------------------------------ letters

_LEADING = regex.compile(r"\W*(?:([A-Z])\s*[.:)\n。、]|([A-HJ-Z])[,，])")
_NO_ARTICLE = regex.compile(
    r"[ \t]+(?:an?|and|as|based|be|because|but|by|due|for|from|given|here|if|in|is|isn|it|my|nor|not|of|on|or|rather|"
    r"seems|should|since|so|than|the|then|this|to|was|which|with|would|"
    r"ist|weil|da|denn|oder|und|wäre|es|porque|ya|pues|sería|est|car|parce|puisque|ou|et|n|é|pois|seria|não|è|perché|"
    r"poiché|non|omdat|want|adalah|karena|atau|dan|là|vì|hoặc|và|çünkü|veya|jest|ponieważ|lub|no)\b"
)
"""Text that follows the letter A, but never the article. "A The grandfather" is read by its text."""
_NO_PRONOUN = regex.compile(rf"\W*\Z|[ \t]+(?:is|or)\b|[:)\]*]|[{_GLUED}]")
"""Text that follows the letter I, but hardly ever the pronoun."""
_WORD_FOLLOWS = regex.compile(r"[ \t]+[*_\"'`]*[\p{Latin}\p{Nd}]{2}")


def _letters(text: str, last: str, named: Sequence[_Named]) -> set[str]:
    """Return the letters that a reply names as its answer, and POISON for those that it doubts."""
    alone = regex.fullmatch(r"\W*([A-Za-z])\W*", text) or _LEADING.match(text)
    long = [n for n in named if n.end - n.start > 1]
    found: set[str] = set()
    if alone and _denial(text, alone.start(alone.lastindex), alone.end(alone.lastindex), named) is None:
        found = {alone[alone.lastindex].upper()}
    for pattern in (_ANSWER_IS, _BRACKETED, _LONE_CAPITAL):
        if pattern is _LONE_CAPITAL and found:
            break  # a marked letter outweighs initials and the like
        for match in pattern.finditer(text):
            at = match.lastindex
            if not _inside(match.start(at), match.end(at), long):
                found |= _meant(text, match.start(at), match.end(at), last, named)
    return {letter for letter in found if letter == POISON or letter <= last}


def _inside(start: int, end: int, named: Sequence[_Named]) -> bool:
    """Whether a span is within one of the texts, and not at its end."""
    at = bisect_right(named, start, key=_begin)
    return at > 0 and end < named[at - 1].end


def _meant(text: str, start: int, end: int, last: str, named: Sequence[_Named] = ()) -> set[str]:
    """Return the letter at a position of a reply, and a second one that is joined to it ("A or B")."""
    letter = text[start]
    if (letter.islower() and letter.upper() > last) or _is_word(letter, text, end):  # "person(s)"
        return set()
    denial = _denial(text, start, end, named)
    if denial:
        return {POISON} if denial == POISON and letter.upper() <= last else set()
    found = {letter.upper()}
    also = _ALSO.match(text, end)
    if also and not _is_word(also[1], text, also.end()) and (also[1].isupper() or also[1].upper() <= last):
        found.add(also[1].upper())
    return found


def _is_word(letter: str, text: str, end: int) -> bool:
    """Whether a letter is a word (English "a" and "I", Portuguese "o", Spanish "y") rather than an option's name."""
    if letter in "AaEeOoYy":
        return bool(_WORD_FOLLOWS.match(text, end)) and not (letter.isupper() and _NO_ARTICLE.match(text, end))
    return letter in "iI" and not _NO_PRONOUN.match(text, end)


# ------------------------------------------------------------------------------------------------ option texts

_HAN_BEFORE = "是为為得选選择擇项項说說就该該这這位个個名案在而但以此中到出有由被让讓知明示定即或和与與及跟还還认認為,"
_HAN_AFTER = _any(
    "是|为|為|在|很|都|也|不|没|沒|会|會|能|说|說|做|最|更|太|被|把|了|应|應|吧|啊|呢|才|就|正确|正確|比|对|對|可能",
    "因为|因為|所以|而|或|和|与|與|及|跟|还|還|大声|大聲",
)
_KANA_BEFORE = "はがをにでともやかへく、"
_KANA_AFTER = _any("は|が|を|に|で|と|も|や|か|だ|じゃ|さんは|さんが|さんです|さんだ|の方|のほう|より|よ|ね|ので|から")
_PARTICLES = _any(
    "이|가|은|는|을|를|에게|께서|께|와|과|랑|이랑|하고|도|만|로|으로|입니다|이다|다|이에요|예요|에요|였습니다|이었습니다|였다",
    "이었다|라고|이라고|이라|라|임|요|님|님이|님은|님께서|님입니다|이며|이고|인|일|이나|나|씨|씨가|씨는|씨입니다|가요|인가요",
)
_THAI_BEFORE = "(?:" + "|".join(rf"(?<={normal_form(w)})" for w in ("คือ", "เป็น", "ว่า", "คุณ")) + ")"
_THAI_AFTER = _any("ครับ|ค่ะ|คะ|นะ|เป็น|คือ|ที่")
_NO_SPACE_ASIA = r"\p{Thai}\p{Lao}\p{Khmer}\p{Myanmar}"


_begin = attrgetter("start")


class _Named(NamedTuple):
    """An option's text at a position of a reply."""

    text: str
    options: tuple[int, ...]
    """Options with this text; several of them cannot be distinguished."""
    start: int
    end: int


LONG = 2_000
"""Characters above which an option's words are looked for before its pattern: a pattern of many equal words takes
quadratic time if it is not found."""


def _named(text: str, options: Sequence[str]) -> list[_Named]:
    """Find the options' texts in a reply. Longer ones come first: "French" inside "French Canadian" does not count."""
    texts: dict[str, list[int]] = {}
    for o, option in enumerate(options):
        texts.setdefault(_words(normal_form(option)), []).append(o)
    found: list[_Named] = []
    for words in sorted((t for t in texts if t), key=len, reverse=True):
        if len(words) > LONG and words not in _words(text):
            continue
        own = _text_pattern(normal_form(options[texts[words][0]])).finditer(text)
        new = [
            _Named(words, tuple(texts[words]), m.start(), m.end())
            for m in own
            if not _overlapped(m.start(), m.end(), found)
        ]
        found = sorted([*found, *new], key=_begin)
    return found


def _overlapped(start: int, end: int, named: Sequence[_Named]) -> bool:
    """Whether one of the texts, which are sorted and do not overlap, shares a character with a span."""
    at = bisect_left(named, end, key=_begin)
    return at > 0 and named[at - 1].end > start


def _text_pattern_or_none(option: str) -> Any:
    """Return the pattern of an option's text; None for a text without words ("+")."""
    return _text_pattern(normal_form(option)) if _words(normal_form(option)) else None


@lru_cache(maxsize=4096)
def _text_pattern(option: str) -> Any:
    """Return a pattern that finds an option's text in a sentence; other punctuation may separate the words."""
    tokens = regex.findall(rf"{_NUMBER}|\w+(?:['’‘ʼ]\w+)*", regex.sub(r"(?i)\bcan not\b", "cannot", option))
    body = _word_pattern(tokens[0])
    for before, token in pairwise(tokens):
        glued = regex.search(rf"[{_GLUED}]\Z", before) and regex.match(rf"[{_GLUED}]", token)
        body += (r"[\W_]*" if glued else r"\W+") + _word_pattern(token)
    short = len(tokens) == 1 and len(option) == 1
    return regex.compile(_left(tokens[0]) + body + _right(tokens[-1], short), regex.I | regex.F)


def _word_pattern(word: str) -> str:
    """Return a pattern for a word, with optional apostrophes, and in Arabic with or without its article."""
    if regex.fullmatch(r"(?i)can['’‘ʼ]?t|cannot", word):
        return r"(?:can['’‘ʼ]?t|can ?not)"
    if regex.match(r"\p{Arabic}", word):
        stem = regex.sub(r"\A(?:ال|لل)(?=\w{2})", "", word)
        return r"(?:[وف]?(?:ال|لل|بال|كال))?" + _literal(stem)
    escaped = "['’‘ʼ]?".join(_literal(part) for part in regex.split("['’‘ʼ]", word))
    return str(regex.sub(r"(?i)nt\Z", "n['’‘ʼ]?t", escaped))


PIECE = 100
"""Maximum characters of a literal: regex prepares a search for repeated parts of a longer one, in cubic time for
"999..."."""


def _literal(text: str) -> str:
    """Return a pattern for the text itself; a lookahead separates the pieces of a long one."""
    return "(?=.)".join(regex.escape(text[at : at + PIECE]) for at in range(0, len(text), PIECE))


def _left(token: str) -> str:
    """Return a pattern for what may precede an option's first word."""
    if regex.match(rf"[{_NO_SPACE_ASIA}]", token):
        return rf"(?:(?<!\w)|{_THAI_BEFORE})"
    if regex.match(r"[\p{Han}\p{Katakana}]", token):  # kana before Han is where a word begins
        return rf"(?:(?<![{_GLUED}])|(?<=[\p{{Hiragana}}{_HAN_BEFORE}]))"
    if regex.match(r"\p{Hiragana}", token):
        return rf"(?:(?<!\w)|(?<=[{_KANA_BEFORE}]))"
    if token.startswith("-"):
        return r"(?<!\w)"
    if regex.match(r"\d", token):
        return rf"(?<![^\W{_GLUED}])(?<!\d[.,])(?<!(?<!\w)-)"
    if regex.match(r"\p{Hangul}", token):
        return r"(?<!\w)"
    # an elided article may stand before it ("l'homme"), but "Angelo" is not "D'Angelo"
    return rf"(?<![^\W{_GLUED}])(?:(?<!\w['’])|(?<=\b(?:l|qu|un|dell|all|nell|dall|sull)['’]))"


def _right(token: str, short: bool) -> str:
    """Return a pattern for what may follow an option's last word; no word after a single character without spaces."""
    if regex.search(rf"[{_NO_SPACE_ASIA}]\Z", token):
        return rf"(?:(?!\w)|(?={_THAI_AFTER}))"
    if short and regex.search(rf"[{_SPACELESS}]\Z", token):
        return r"(?!\w)|(?=です)"
    if regex.search(r"\p{Han}\Z", token):
        return rf"(?:(?!\w)|(?={_HAN_AFTER}|{_KANA_AFTER}))"
    if regex.search(rf"[{_SPACELESS}]\Z", token):
        return rf"(?:(?!\w)|(?={_KANA_AFTER}))"
    if regex.search(r"\p{Hangul}\Z", token):
        return rf"(?={_PARTICLES}?(?!\w))"
    return rf"(?![^\W{_GLUED}]|['’]\w|\(\p{{Latin}}{{1,3}}\))" + (r"(?![.,]\d)" if regex.search(r"\d\Z", token) else "")


def _text_inside(text: str, named: Sequence[_Named]) -> int | None:
    """Return the only option that is named by its text and not denied; None if there is none, or several."""
    found: set[tuple[int, ...]] = set()
    for n in named:
        denial = _denial(text, n.start, n.end, rejected=_TEXT_REJECTED)
        if denial == POISON:
            return None
        found |= set() if denial else {n.options}
    return next(iter(found))[0] if len(found) == 1 and len(next(iter(found))) == 1 else None


# ------------------------------------------------------------------------------------------------ cut replies

_FIRST = regex.compile(r"\W*([A-Z])(?![\w'’])[.:)\]*\"”」】。、]*")
_LINE_LETTERS = regex.compile(r"^[^\w\n]*([A-Z])(?:[.:)\]*。、]|[ \t]*$)", regex.M)
_REASON = regex.compile(r"[ \t]*[,，;(–—-]?[ \t]*(?:because|since|as|weil|da|porque|ya\s+que|car|因为|因為)\b", regex.I)


def _final(text: str, last: str, question: Question) -> str | None:
    """Return the letter that a cut reply gives in the form of an answer.

    That is a lone letter ("B", "(B)", or "B" on the first line, even before its own option's text or a reason), or a
    letter after "the answer is" or "answer:". A letter or an option in the middle of a sentence does not count, since
    such a reply may be going through the options one by one.
    """
    first = _first(text, last, question)
    found = {first} if first else set()
    answers = list(_FINAL_ANSWER.finditer(text))
    named = _named(text, question.options) if answers else []
    for match in answers:
        if _JOINED.match(text, match.end(1)):
            return None  # "the answer is B or"
        if match[1] != "a" or match.end(1) < len(text):  # else the next word may show that it was an article
            found |= _meant(text, match.start(1), match.end(1), last, named)
    if found:
        found |= {match[1] for match in _LINE_LETTERS.finditer(text)}
    if any(letter > last for letter in found if letter != POISON):
        return None  # "Answer: E" of three options, or the İ that matches as an i
    return found.pop() if len(found) == 1 and POISON not in found else None


def _first(text: str, last: str, question: Question) -> str | None:
    """Return the letter that a cut reply begins with, unless the text after it may name further options."""
    alone = regex.fullmatch(r"\W*([A-Za-z])\W*", text)
    match = alone if alone and "\n" not in text else _FIRST.match(text)
    if not match or (letter := match[1].upper()) > last:
        return None
    rest = text[match.end() :]
    own = _text_pattern_or_none(question.options[question.option_at(LETTERS.index(letter))])
    told = own.match(rest.lstrip(" \t*_")) if own else None
    tail = rest.lstrip(" \t*_")[told.end() :] if told else rest
    closed = not tail.strip() or regex.match(r"[ \t*_]*\n\s*\w", tail) or _REASON.match(tail)
    return letter if closed or (told and regex.match(r"[ \t*_]*[.,;!。，]", tail)) else None
