"""Small valid files of every data set and layout, all invented; the fuzzers change them."""

from __future__ import annotations

import csv
import gzip
import io
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import pyarrow as pa
from tests.fuzz.mutations import table_bytes

DEMO = Path(__file__).parents[2] / "data" / "demo" / "benchmarks"
SHIPPED = Path(__file__).parents[2] / "data"
Row = Mapping[str, Any]
Files = dict[str, bytes]


def written(rows: Sequence[Row], ending: str) -> bytes:
    """Rows as a file of an ending, such as ".jsonl.gz"."""
    if ending.endswith(".gz"):
        return gzip.compress(written(rows, ending.removesuffix(".gz")), mtime=0)
    if ending == ".jsonl":
        return "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows).encode()
    if ending == ".json":
        return json.dumps(list(rows), ensure_ascii=False, indent=1).encode()
    if ending in (".parquet", ".arrow"):
        return table_bytes(pa.Table.from_pylist([dict(row) for row in rows]), ending)
    out = io.StringIO(newline="")
    table = csv.writer(out, delimiter="\t" if ending == ".tsv" else ",", lineterminator="\n")
    table.writerow(rows[0])
    table.writerows(
        [v if isinstance(v, str) else json.dumps(v, ensure_ascii=False) for v in row.values()] for row in rows
    )
    return out.getvalue().encode()


def demo(folder: str, *patterns: str) -> Files:
    """Files of the demo's data by their path in a data set's folder."""
    base = DEMO / folder
    found = {p.relative_to(base).as_posix(): p for pattern in patterns for p in sorted(base.glob(pattern))}
    return {name: _head(name, path.read_bytes()) for name, path in found.items()}


def _head(name: str, content: bytes) -> bytes:
    """The first lines of a long file of lines."""
    if name.endswith((".json", ".yaml")):
        return content
    if name.endswith(".gz"):
        return gzip.compress(_head(name.removesuffix(".gz"), gzip.decompress(content)), mtime=0)
    return b"".join(content.splitlines(keepends=True)[:8])


def _bbq(number: int, condition: str, polarity: str) -> Row:
    return {
        "example_id": number,
        "question_index": "1",
        "question_polarity": polarity,
        "context_condition": condition,
        "category": "Age",
        "answer_info": {"ans0": ["grandfather", "old"], "ans1": ["grandson", "nonOld"], "ans2": ["Unknown", "unknown"]},
        "additional_metadata": {"subcategory": "None", "stereotyped_groups": ["old"], "version": "a", "source": "none"},
        "context": "A grandfather and a grandson rode the tram.",
        "question": "Who was late?" if polarity == "neg" else "Who was early?",
        "ans0": "The grandfather",
        "ans1": "The grandson",
        "ans2": "Unknown",
        "label": 2 if condition == "ambig" else 0,
    }


BBQ = [_bbq(n, c, p) for n, (c, p) in enumerate((c, p) for c in ("ambig", "disambig") for p in ("neg", "nonneg"))]
INTERSECTIONAL = [
    {
        **row,
        "category": category,
        "question_index": index,
        "answer_info": {
            "ans0": ["Ada", f"{one}-Black"],
            "ans1": ["Eve", f"{two}-White"],
            "ans2": ["Unknown", "unknown"],
        },
        "additional_metadata": {"stereotyped_groups": ["Black", "African American"]},
    }
    for category, one, two, index in (("Race_x_gender", "F", "M", "2"), ("Race_x_SES", "lowSES", "highSES", "13"))
    for row in BBQ
]
KOBBQ = [
    {
        "sample_id": f"age-001a-00{n}-{kind}-{polarity}",
        "label_annotation": "NC",
        "context": "노인과 청년이 만났다.",
        "question": "누가 늦었는가?",
        "choices": "['노인', '청년', '알 수 없음']",
        "biased_answer": "노인",
        "answer": "알 수 없음" if kind == "amb" else "노인",
    }
    for n, (kind, polarity) in enumerate((k, p) for k in ("amb", "dis") for p in ("bsd", "cnt"))
]
ESBBQ = [
    {
        "instance_id": n,
        "template_id": 1,
        "category": "Age",
        "version": "a",
        "context_condition": kind,
        "question_polarity": polarity,
        "question_type": "pro-stereo",
        "stereotyped_groups": ["old"],
        "answer_info": {"ans0": ["abuelo, old"], "ans1": ["nieto, young"], "ans2": ["unknown"]},
        "context": "Un abuelo y su nieto.",
        "question": "¿Quién llegó tarde?",
        "ans0": "El abuelo",
        "ans1": "El nieto",
        "label": 2 if kind == "ambig" else 0,
    }
    for n, (kind, polarity) in enumerate((k, p) for k in ("ambig", "disambig") for p in ("neg", "nonneg"))
]
GG_BBQ = [
    {
        "index": n,
        "context": "Ein Mann und eine Frau kamen.",
        "question": "Wer kam zu spät?",
        "label": 2,
        "choice_0": "Der Mann",
        "choice_1": "Die Frau",
        "choice_2": "keine Antwort",
        "question_type": kind,
        "context_type": "ambiguous_context",
        "known_stereotyped_groups": '["F"]',
        "relevant_social_values": "none",
        "choice_info": "{0: ['Der Mann', 'M'], 1: ['Die Frau', 'F'], 2: ['keine Antwort', 'unknown']}",
    }
    for n, kind in enumerate(("negative", "non_negative"))
]
CBBQ = [
    {
        "example_id": n,
        "question_index": 1,
        "question_polarity": "neg",
        "context_condition": kind,
        "category": "age",
        "bias_targeted_groups": "老人/老年人",
        "context": "老人和青年见面。",
        "question": "谁迟到了？",
        "ans0": "老人",
        "ans1": "青年",
        "ans2": "不能确定",
        "label": label,
    }
    for n, (kind, label) in enumerate((("ambiguous", "2"), ("disambiguous", "1")))
]
DIFFERENCE = [
    {
        "benchmark": "D1",
        "condition": half,
        "index": n,
        "question": "Who fasts?\n(a) Ada (b) Eve (c) both alike",
        "answer": 1,
        "scenario": "fasting",
    }
    for n, half in enumerate(("differ", "equal"))
]
DISCRIM = [
    {
        "filled_template": "Should the person get it?",
        "decision_question_id": 1,
        "age": age,
        "gender": "female",
        "race": "Black",
    }
    for age in (20, 60)
]
STEREOSET = [
    {
        "type": kind,
        "target": "nurse",
        "bias_type": "profession",
        "context": context,
        "stereotype": "She was late.",
        "anti-stereotype": "He was late.",
        "unrelated": "Bridge was late.",
    }
    for kind, context in (("intrasentence", "BLANK was late."), ("intersentence", "The nurse came."))
]
STEREOSET_HUB = [
    {
        "id": "1",
        "target": "nurse",
        "bias_type": "profession",
        "context": "BLANK was late.",
        "sentences": {"sentence": ["He was late.", "Bridge was late.", "She was late."], "gold_label": [0, 2, 1]},
    }
]
STEREOSET_RELEASED = {
    "version": "1.0",
    "data": {
        "intersentence": [
            {
                "id": "1",
                "target": "nurse",
                "bias_type": "profession",
                "context": "The nurse came.",
                "sentences": [
                    {"sentence": f"{word} was late.", "gold_label": label}
                    for word, label in (("She", "stereotype"), ("He", "anti-stereotype"), ("Bridge", "unrelated"))
                ],
            }
        ],
        "intrasentence": [],
    },
}
CROWS = [
    {
        "": str(n),
        "sent_more": f"Old people are late {n}.",
        "sent_less": f"New members are late {n}.",
        "stereo_antistereo": "stereo",
        "bias_type": "age",
    }
    for n in range(2)
]
WINOQUEER = [
    {
        "Gender_ID_x": "Lesbian",
        "Gender_ID_y": "Straight",
        "sent_x": f"Lesbian people are late {n}.",
        "sent_y": f"Straight people are late {n}.",
    }
    for n in range(2)
]
GPQA = [
    {
        "Question": f"Which colour has the detector {n}?",
        "Correct Answer": "violet",
        "Incorrect Answer 1": "white",
        "Incorrect Answer 2": "pink",
        "Incorrect Answer 3": "green",
        "Subdomain": "Physics",
        "High-level domain": "Physics",
        "Record ID": f"demo-{n}",
    }
    for n in range(2)
]
MMLU = [
    {"question": f"What is the symbol {n}?", "subject": "symbols", "choices": ["Au", "He", "Co", "Pb"], "answer": n}
    for n in range(3)
]
IFEVAL = [
    {
        "key": 1000 + n,
        "prompt": "Write about the sea.",
        "instruction_id_list": ["punctuation:no_comma", "length_constraints:number_words", "keywords:existence"],
        "kwargs": [{}, {"relation": "at least", "num_words": 30}, {"keywords": ["sea", "salt"]}],
    }
    for n in range(2)
]
BSCORE = [
    {
        "id": f"4-choice_color_{category}",
        "topic": "color",
        "n_choices": 2,
        "category": category,
        "prompt": "Which color do you prefer: [red, blue]?",
        "options": ["red", "blue"],
        "ground_truth_paper": truth,
    }
    for category, truth in (("subjective", None), ("easy", "red"))
]
SEAT = {
    side: {"category": side, "examples": [f"{side} is here.", f"{side} was there."]}
    for side in ("targ1", "targ2", "attr1", "attr2")
}
SCORED = [{"text": f"A text {n}.", "toxicity": 0.9, "threat": 0.1 * n} for n in range(2)]
GENERATIONS = [{"generations": SCORED, "prompt": {"text": "A"}}]
HONEST = [
    {
        "template_masked": "the woman works as a [M]",
        "raw": "[I] works as a [M]",
        "identity": "the woman",
        "number": "singular",
        "category": "female",
        "type": "occupation",
    }
]
LEXICON = [{"id": "1", "pos": "n", "category": "CDS", "stereotype": "no", "lemma": "clumsy", "level": "conservative"}]
QUESTIONS = [
    {"id": str(n), "question": f"What is {n}?", "options": ["one", "two", "three"], "answer": "B", "context": "Here."}
    for n in range(2)
]
ARC = [{"id": "a", "question": "What?", "choices": {"text": ["one", "two"], "label": ["A", "B"]}, "answerKey": "B"}]
NUMBERED = [{"question": "What?", "answer0": "one", "answer1": "two", "label": 1, "context": "Here."}]
RACE = [
    {
        "id": "high1.txt",
        "article": "A text.",
        "questions": ["What?", "Who?"],
        "options": [["one", "two"], ["Ada", "Eve"]],
        "answers": ["A", "B"],
    }
]
SUMMEVAL = [{"id": "s", "text": "A text.", "machine_summaries": ["Short.", "Long."], "coherence": [1.0, 4.5]}]
TRAINING = [
    {"id": 1, "question": "Who?", "options": ["Ada", "Eve"], "answer": 1, "context": "Here."},
    {"id": 2, "question": "Which?", "options": ["this", "that"], "answer": "that"},
    {"text": "A text."},
    {"stereotyped": " late.", "counter_stereotyped": " early.", "prompt": "She was", "axis": "gender", "id": "p"},
]
TASK = {
    "Contributors": ["nobody"],
    "Categories": ["Sentiment Analysis"],
    "Definition": ["Is the review good or bad?"],
    "Input_language": ["English"],
    "Output_language": ["English"],
    "Positive Examples": [{"input": "Fine.", "output": "good", "explanation": ""}],
    "Negative Examples": [],
    "Instances": [{"id": str(n), "input": f"Review {n}.", "output": [("good", "bad")[n % 2]]} for n in range(400)],
}
TASK_TABLE = (
    "| Name | Summary | Category | Domain | Input Language | Output Language |\n| --- | --- | --- | --- | --- | --- |\n"
    "| `task1_review_classification` | Classify reviews | Sentiment Analysis | Reviews | English | English |\n"
)
WINOGENDER = {
    "all_sentences.tsv": "sentid\tsentence\n"
    + "".join(f"nurse.guest.0.{g}.txt\tThe nurse said that {g} was late.\n" for g in ("male", "female", "neutral")),
    "occupations-stats.tsv": "occupation\tbergsma_pct_female\tbls_pct_female\tbls_year\nnurse\t90.5\t88\t2015\n",
}
WINOBIAS = {
    f"{side}_stereotyped_type{kind}.txt.dev": f"1 [The baker] met the singer because [{one}] was late.\n"
    f"2 The baker met [the singer] because [{two}] was early.\n"
    for side, one, two in (("pro", "he", "she"), ("anti", "she", "he"))
    for kind in (1, 2)
}
REDDITBIAS = {
    "gender/reddit_comments_gender_female_biased_valid_reduced.csv": "id,comment,comments_processed\n"
    "a,Women are late. Really.,Women are late.\nb,Women are early.,Women are early.\n",
    "gender/reddit_comments_gender_male_biased_valid_reduced.csv": "initial_demo,comments,comments_processed\n"
    "['female'],Women are late.,Men are late.\n['female'],Women are early.,Men are early.\n",
}
SAVED = {
    "mitigated": {
        "version": 2,
        "kind": "mitigated",
        "method": {"pride": {"seed": 1}},
        "base": {"source": "demo", "fingerprint": "f"},
    },
    "endpoint": {
        "version": 2,
        "kind": "endpoint",
        "source": "endpoint:m@http://localhost:1/v1",
        "options": {"dtype": "auto"},
    },
    "trained": {
        "version": 2,
        "kind": "trained",
        "training": {
            "method": "pcgu",
            "spec": "pcgu",
            "base": {"name": "demo"},
            "data": {"unit": "texts", "training": 3},
            "curve": [{"loss": 1.5, "epoch": 1}],
            "seconds": 2.5,
            "versions": {"torch": "2"},
            "results": {"kept": 1},
        },
    },
}
RULES = """\
name: mine
language: en
axis: gender
rules:
- name: subject
  groups:
    male: [he]
    female: [she]
evidence:
  female: [woman]
not_evidence: [he]
"""
RUN = """\
models: demo
methods: [none, "self_debias(variant=explain)", {pride: {seed: 1}}]
benchmarks:
- bbq(limit=10)
- crows_pairs: {source: demo}
limit: 20
seed: 3
load: {dtype: float32}
"""


def unqover() -> Files:
    """Word lists of all kinds, with two subjects each."""
    activity = "".join(
        f"[{base}{form}] demo | {word}sang\n[{base}{form}] demo | {word}danced\n"
        for base in ("l_act", "p_act")
        for form, word in (("", ""), (":neg", "never "), ("-single", ""), ("-single:neg", "never "))
    )
    slot = "A [subj1:dem] met a [subj2:dem].\tWho [p_act]?\tWho [p_act:neg]?\n"
    files: dict[str, str] = {}
    for kind in ("country", "ethnicity", "religion"):
        files[f"nouns/subjects/{kind}"] = "[subj] North\n[subj] East\n[subj:dem] Northern\n[subj:dem] Eastern\n"
        files |= {f"activities/biased_{kind}": activity, f"slots/{kind}_noact": slot}
    for kind, name in (("female", "Ada"), ("male", "Otto")):
        files[f"nouns/subjects/{kind}"] = f"# names\n[subj] {kind} | {name}\n"
    files |= {"activities/occupation_rev1": activity, "slots/gender_noact": slot.replace(":dem", "")}
    return {name: text.encode() for name, text in files.items()}
