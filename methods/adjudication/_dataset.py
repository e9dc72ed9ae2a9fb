"""Write the data set of an adjudication: rows to learn from with their origin, as Parquet, and a card.

`datasets.load_dataset(folder, "sft")` opens it; the other configurations are preferences, judgements and abstentions.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from evenhand.data.adjudication import AdjudicationTexts
from evenhand.interfaces import Array
from evenhand.methods.adjudication._groups import Prompt
from evenhand.methods.adjudication._judging import Ballots
from evenhand.methods.adjudication._tallying import Counted

CONFIGS = ("sft", "preferences", "judgements", "abstentions")


class Rows:
    """The rows of one or more rounds, by configuration."""

    def __init__(self) -> None:
        """Start without any rows."""
        self.of: dict[str, list[dict[str, Any]]] = {name: [] for name in CONFIGS}

    def add(
        self,
        turn: int,
        cast: Ballots,
        counted: Counted,
        weight: Array,
        prompts: Mapping[str, Prompt],
        fingerprints: Mapping[str, str],
        texts: AdjudicationTexts,
    ) -> None:
        """Add the results of a round."""
        votes = _votes(cast, counted.z, weight, fingerprints)
        for name, decision in counted.decisions.items():
            rows, prompt = counted.members[name], prompts[name]
            about = {"round": turn, **_about(prompt)}
            for i in rows:
                said = _said(cast, counted, i, fingerprints)
                self.of["judgements"] += [{**about, **said, **vote} for vote in votes[i]]
            if decision.best is None:
                judged = [_said(cast, counted, i, fingerprints) for i in rows]
                self.of["abstentions"].append({**about, "reason": decision.reason, "candidates": judged})
                continue
            best, turns = rows[decision.best], [{"role": "user", "content": texts.ask.format(text=prompt.text)}]
            kept = {**about, **_said(cast, counted, best, fingerprints), "votes": votes[best]}
            reply = [{"role": "assistant", "content": cast.candidates[best].text}]
            self.of["sft"].append({"prompt": turns, "completion": reply, **kept})
            if decision.worst is not None:
                worst = rows[decision.worst]
                self.of["preferences"].append(
                    {
                        "prompt": turns,
                        "chosen": reply,
                        "rejected": [{"role": "assistant", "content": cast.candidates[worst].text}],
                        **kept,
                        "rejected_by": _said(cast, counted, worst, fingerprints),
                        "rejected_votes": votes[worst],
                    }
                )

    def write(self, folder: Path, about: Mapping[str, Any]) -> Path:
        """Write all configurations that have rows, and the card.

        Args:
            folder: Created if it does not exist.
            about: Facts for the card: members, settings, counts.
        """
        import pyarrow as pa
        import pyarrow.parquet as pq

        there = []
        for name, rows in self.of.items():
            if rows:
                (folder / name).mkdir(parents=True, exist_ok=True)
                pq.write_table(pa.Table.from_pylist(rows), folder / name / "rows.parquet")
                there.append(name)
        folder.mkdir(parents=True, exist_ok=True)
        (folder / "README.md").write_text(_card(there, about, {n: len(r) for n, r in self.of.items()}), "utf-8")
        return folder


def _about(prompt: Prompt) -> dict[str, Any]:
    return {
        "id": prompt.id,
        "text": prompt.text,
        "split": prompt.split,
        "axis": prompt.axis,
        "bucket": prompt.bucket,
        "descriptor": prompt.descriptor,
        "template": prompt.template,
        "noun": prompt.noun,
        "group": prompt.group,
        "draw": prompt.draw,
    }


def _said(cast: Ballots, counted: Counted, row: int, fingerprints: Mapping[str, str]) -> dict[str, Any]:
    judged, candidate = counted.judged[row], cast.candidates[row]
    return {
        "answer": candidate.text,
        "author": candidate.author,
        "author_fingerprint": fingerprints[candidate.author],
        "revised": candidate.revised,
        "b": judged.b,
        "disagreement": judged.disagreement,
        "bias": judged.bias,
        "helpfulness": judged.helpfulness,
        "refusal": judged.refusal,
        "voters": judged.voters,
    }


def _votes(cast: Ballots, z: Array, weight: Array, fingerprints: Mapping[str, str]) -> list[list[dict[str, Any]]]:
    """Return the votes on each candidate."""
    out: list[list[dict[str, Any]]] = []
    for i in range(len(cast.candidates)):
        out.append([])
        for j, judge in enumerate(cast.judges):
            if cast.votes["bias"][i, j] == cast.votes["bias"][i, j]:  # nan stands for no vote
                out[-1].append(
                    {
                        "judge": judge,
                        "judge_fingerprint": fingerprints[judge],
                        "judge_weight": float(weight[j]),
                        "vote_bias": float(cast.votes["bias"][i, j]),
                        "vote_z": float(z[i, j]),
                        "vote_helpfulness": _value(cast, "helpfulness", i, j),
                        "vote_refusal": _value(cast, "refusal", i, j),
                        "vote_mass": float(cast.mass[i, j]),
                    }
                )
    return out


def _value(cast: Ballots, rubric: str, i: int, j: int) -> float:
    return float(cast.votes[rubric][i, j]) if rubric in cast.votes else float("nan")


def _card(there: Sequence[str], about: Mapping[str, Any], counts: Mapping[str, int]) -> str:
    import yaml

    configs: list[dict[str, Any]] = [
        {"config_name": name, "data_files": [{"split": "train", "path": f"{name}/rows.parquet"}]} for name in there
    ]
    if configs:
        configs[0]["default"] = True
    head = yaml.safe_dump(
        {"license": "cc-by-sa-4.0", "language": [about["language"]], "configs": configs}, sort_keys=False
    )
    members = "\n".join(f"- {name}: fingerprint `{print_}`" for name, print_ in about["fingerprints"].items())
    demo = "\nAnswers of a demo model with planted bias: not evidence about any real model.\n" if about["demo"] else ""
    return f"""---
{head}---
# Answers found least biased by cross-model adjudication
{demo}
Prompts are sentences of HolisticBias (Smith et al. 2022, CC-BY-SA-4.0; {about["source"]}, version {about["version"]}).
Models answered them and judged one another's answers; nobody looked at what was kept, and nothing here was labelled by
a person. A judge's opinion of bias is a model's opinion: biases that all judges share are not seen by any of them.

| configuration | rows | what a row is |
|---|--:|---|
| sft | {counts["sft"]} | a prompt and the selected answer, with every vote on it |
| preferences | {counts["preferences"]} | the same with the most biased answer to the prompt |
| judgements | {counts["judgements"]} | one vote of one judge on one answer |
| abstentions | {counts["abstentions"]} | a prompt without a selected answer, and why |

`b` is the weighted mean of the judges' ratings of bias, each in standard deviations of its own; `bias`, `helpfulness`
and `refusal` are weighted means on the scales themselves (0-4, 1-5, probability). Rows are of the part `fit` alone: no
descriptor and no template of the parts `validation` and `evaluation` is among them.

Who answered or judged:

{members}

Made with `{about["spec"]}`, seed {about["seed"]}, evenhand {about["evenhand"]}.
"""
