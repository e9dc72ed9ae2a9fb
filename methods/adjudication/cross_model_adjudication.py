"""`cross_model_adjudication`: a pool of models builds its own low-bias data set, and the given model learns from it.

Source: "Cross-Model Adjudication for Bias Mitigation in Large Language Models" (CMAF), IEEE JSTSP 2026: four models
answer HolisticBias prompts, adjudicate one another's answers, and are fine-tuned on what is left. Its full text could
not be read. What is known is that outline, the models and the measures; everything else here is a reconstruction:
rubrics, expected scores, weights by agreement, selection, the revision, and all settings.
"""

from __future__ import annotations

import json
import shutil
import sys
from dataclasses import replace
from pathlib import Path
from random import Random
from typing import TYPE_CHECKING, Annotated, Any, ClassVar, Literal

from pydantic import Field

from evenhand.core.artifacts import active, artefact, artefacts, made_with
from evenhand.core.hashing import digest
from evenhand.core.training_record import record_of
from evenhand.data.parts import Part
from evenhand.errors import DataError, SettingsError
from evenhand.interfaces import (
    Ability,
    Dialogue,
    Message,
    Method,
    Model,
    TrainData,
    TrainingRecord,
    in_first_names,
    settings,
)
from evenhand.models import saved

if TYPE_CHECKING:
    from evenhand.methods.adjudication._groups import Prompt
    from evenhand.methods.adjudication._members import Member
    from evenhand.methods.adjudication._rounds import General, Rules

VERSION = 1
"""Version of what a run does; part of the name under which its result is stored."""


@settings
class CrossModelAdjudication(Method):
    """Let a pool of models answer, judge one another, and fine-tune the given one on what they found least biased."""

    name: ClassVar[str] = "cross_model_adjudication"
    needs: ClassVar[frozenset[Ability]] = frozenset({"weights", "generate"})
    presets: ClassVar[dict[str, dict[str, Any]]] = {
        "demo": {
            "pool": ("demo-b", "demo-c", "demo-d"),
            "judges": ("judge:demo", "judge:demo-b", "judge:demo-c", "judge:demo-d"),
            "peers": False,
            "source": "demo",
            "prompts": "demo",
            "nouns": ("person",),
            "answers": 6,
            "max_new_tokens": 6,
            "general": "demo",
            "general_fraction": 0.2,
            "learning_rate": 3e-4,
            "epochs": 8,
        }
    }
    preset_sources: ClassVar[dict[str, dict[str, str]]] = {"demo": {"": "ours, for the demo models"}}
    added_later: ClassVar[frozenset[str]] = frozenset({"part"})
    renamed: ClassVar[dict[str, str]] = {
        "validation": "validation_fraction",
        "most_bias": "max_bias",
        "least_helpfulness": "min_helpfulness",
        "most_refusal": "max_refusal",
        "most_disagreement": "max_disagreement",
        "accumulate": "gradient_accumulation_steps",
        "least_gain": "min_gain",
        "fit": "fit_fraction",
        "general_share": "general_fraction",
        "texts": "prompts",
    }

    pool: tuple[str, ...] = ()
    """Other members of the pool, as `load` names them: models that answer, and judge one another."""
    judges: tuple[str, ...] = ()
    """Members that only judge, such as endpoints."""
    peers: bool = True
    """Whether members that answer also judge one another; otherwise only `judges` do."""
    trained: Literal["given", "all"] = "given"
    """Which members are trained: the given model, or every member that answers (as in the paper). The result is the
    given one either way; the adapters of the others are in `output`."""
    objective: Literal["sft", "dpo"] = "sft"
    """Training objective. sft: learn the selected answers. dpo: prefer them to the most biased ones."""
    source: str = "auto"
    """Where HolisticBias comes from: auto ($EVENHAND_DATA/holisticbias), demo, or a folder."""
    version: Literal["1.0", "1.1"] = "1.0"
    """Version of HolisticBias."""
    part: Part = "all"
    """Which half of HolisticBias's descriptors and templates prompts are made of: with fit, the benchmark
    `holistic_bias(part=test)` asks none of them; all is both halves."""
    axes: tuple[str, ...] = ()
    """Axes whose descriptors are used; empty takes all."""
    descriptors: Annotated[int, Field(gt=0)] | None = None
    """Maximum number of descriptors of each axis, drawn by the seed; None takes all."""
    templates: Annotated[int, Field(gt=0)] | None = None
    """Maximum number of templates, drawn by the seed; None takes all."""
    nouns: Annotated[int, Field(gt=0)] | tuple[str, ...] = 1
    """Number of nouns that are drawn, neutral ones first, or the nouns themselves."""
    fit_fraction: Annotated[float, Field(gt=0, lt=1)] = 0.6
    """Fraction of the descriptors, and of the templates, used for training."""
    validation_fraction: Annotated[float, Field(ge=0, lt=1)] = 0.2
    """Fraction of the descriptors, and of the templates, on which rounds are judged; the rest is for evaluation and is
    never answered in training."""
    answers: Annotated[int, Field(gt=0)] = 1
    """Number of answers of every member to a prompt, each adjudicated by itself."""
    temperature: Annotated[float, Field(ge=0)] = 0.7
    """Sampling temperature of the answers."""
    max_new_tokens: Annotated[int, Field(gt=0)] = 128
    """Maximum length of an answer, in tokens."""
    prompts: str = "en"
    """Texts with which members are asked and judge: en, demo, or a file with the same keys."""
    max_bias: float = 2.0
    """Maximum weighted mean rating of bias, 0 to 4, of a selected answer."""
    min_helpfulness: float = 3.0
    """Minimum weighted mean rating of helpfulness, 1 to 5, of a selected answer."""
    max_refusal: float = 0.5
    """An answer counts as a refusal, and is not selected, from this probability on."""
    max_disagreement: Annotated[float, Field(gt=0)] = 1.0
    """Maximum weighted standard deviation of the standardised ratings of a selected answer."""
    revise: bool = True
    """Whether a prompt without a selected answer gets one critique, revision and new judgement."""
    general: str | None = None
    """A .jsonl file of general instructions: "prompt", and "response" unless the member's own answer is to be used;
    demo takes some from the proving ground. Questions from one half of the training data are added, at most one to
    three instructions; the other half is the exam."""
    general_fraction: Annotated[float, Field(ge=0, lt=1)] = 0.15
    """Fraction of general instructions among the training examples."""
    rank: Annotated[int, Field(gt=0)] = 16
    """Rank of the LoRA adapter on all linear layers, whose alpha is twice that."""
    learning_rate: Annotated[float, Field(gt=0)] = 1e-4
    """Peak learning rate of AdamW."""
    epochs: Annotated[int, Field(gt=0)] = 2
    """Number of passes over the training examples."""
    batch_size: Annotated[int, Field(gt=0)] = 8
    """Number of training examples per batch."""
    gradient_accumulation_steps: Annotated[int, Field(gt=0)] = 1
    """Number of batches per optimizer step."""
    beta: Annotated[float, Field(gt=0)] = 0.1
    """Cost of moving away from the untrained member, with objective=dpo."""
    rounds: Annotated[int, Field(ge=1, le=3)] = 1
    """Maximum number of rounds; each begins with what was learned in the last."""
    min_gain: float = 0.05
    """Minimum decrease of the validation bias, 0 to 4, for another round."""
    tolerance: Annotated[float, Field(ge=0)] = 0.01
    """Fraction of the exam that may be lost; beyond it the rounds end, and an earlier one is used."""
    measures: bool = True
    """Whether differences in likelihood between groups are measured before and after."""
    output: Path | None = None
    """Folder to which data set, adapters and page are copied; a killed run resumes there."""
    seed: int = 0
    """Seed of the split, the answers, the order of judging and the training."""

    def __post_init__(self) -> None:
        """Refuse fractions that leave nothing to evaluate, and a pool in which nobody can judge."""
        if self.fit_fraction + self.validation_fraction >= 1:
            raise SettingsError(
                f"fit_fraction={self.fit_fraction} and validation_fraction={self.validation_fraction} leave nothing "
                "for evaluation; together they must be below 1"
            )
        if not self.peers and not self.judges:
            raise SettingsError("peers=False without judges: no member would judge; add some with judges=[...]")
        named = [*self.pool, *self.judges]
        if len(set(named)) < len(named):
            raise SettingsError(f"{named}: a member is listed twice; no member may judge its own answers")

    def unsupported_reason(self, model: Model | None, data: TrainData | None = None) -> str:
        """Return a reason against a model that is not local or is quantised, or a pool without other members."""
        reason = super().unsupported_reason(model, data)
        if reason or model is None:
            return reason
        if not self.pool and not self.judges:
            return (
                f"{self.name} needs a pool of at least two, but {model.name} is alone: add pool=[...] for others that "
                "answer and judge, or judges=[...] for models that only judge"
            )
        from evenhand.inference.process_store_support import several_processes
        from evenhand.training import trainable

        if several_processes():
            return f"{self.name} trains in one process: start it without torchrun or accelerate launch"
        return trainable.unsupported_reason(self.name, model, masked=False)

    def apply(self, model: Model, data: TrainData | None = None) -> Model:
        """Adjudicate and train; the given model is not changed.

        Raises:
            SettingsError: The pool cannot adjudicate, or TRL is not installed.
            DataError: HolisticBias or the texts cannot be read.
            EvenhandError: Too few answers were selected for training.
        """
        from evenhand.methods.adjudication._training import require
        from evenhand.training.students import open_trained

        reason = self.unsupported_reason(model, data)
        if reason:
            raise SettingsError(reason)
        require()
        prompts, parts, source = self._prompts()
        rules, sha = self._rules()
        general = self._general(data)
        decisive = self.key_settings(leave_out=("output", "general", "prompts"))
        key = digest(
            self.name,
            VERSION,
            made_with(model, precision=None),
            model.fingerprint,
            decisive,
            sha,
            [p.id for p in prompts],
            in_first_names(general),
            source,
        )
        about = {
            "spec": replace(self, output=None).spec,
            "seed": self.seed,
            "source": str(self.source),
            "version": self.version,
            "evenhand": _version(),
        }

        def make(folder: Path) -> None:
            from evenhand.methods.adjudication._page import write
            from evenhand.methods.adjudication._rounds import Adjudication

            run = Adjudication(self._members(model), parts, prompts, general, rules, folder, about, self.settings)
            print(f"{self.name}: {run.memory['said']}", file=sys.stderr)
            facts = run.run()
            record = self._record(model, saved.training_of(folder / "member"), facts)
            saved.write_weights(folder / "member", record)
            write(folder / "page.html", {"method": self.spec, **facts}, run.rows, run.about)

        place = self.output if active() is None and self.output is not None else active()
        with artefacts(place and Path(place)), artefact(key, make) as folder:
            if self.output is not None:
                _copied(folder, Path(self.output).expanduser())
            return open_trained(folder / "member", model, f"{model.name}+{self.spec}")

    def own_texts(self) -> list[str]:
        """Return HolisticBias's sentences that are answered in training; those for evaluation are not."""
        from evenhand.methods.adjudication._groups import ANSWERED

        return list(dict.fromkeys(p.text for p in self._prompts()[0] if p.split in ANSWERED))

    def _record(self, model: Model, member: TrainingRecord | None, facts: dict[str, Any]) -> TrainingRecord:
        """Return the record of the whole method, with the training of the chosen member."""
        if member is None:
            return record_of(self, model, results=facts)
        names = ("data", "precision", "epochs", "steps", "curve", "seconds")
        own = {key: value for key, value in member.results.items() if key != "fingerprint"}
        return record_of(self, model, results={**own, **facts}, **{name: getattr(member, name) for name in names})

    # ------------------------------------------------------------------------------------------------- what it needs

    def _prompts(self) -> tuple[list[Prompt], Any, dict[str, Any]]:
        from evenhand.data.holistic_bias import in_part, load_parts
        from evenhand.methods.adjudication._groups import prompts_of, refuse_leaks

        parts, facts = load_parts(self.source, self.version)
        parts = in_part(parts, self.part)
        shares = (self.fit_fraction, self.validation_fraction, 1 - self.fit_fraction - self.validation_fraction)
        prompts = prompts_of(
            parts,
            shares=shares,
            seed=self.seed,
            nouns=self.nouns,
            axes=self.axes,
            descriptors=self.descriptors,
            templates=self.templates,
            draws=self.answers,
        )
        refuse_leaks(prompts)
        if not any(p.split == "fit" for p in prompts):
            raise SettingsError(f"{self.name}: no prompts to learn from; allow more descriptors, templates or axes")
        return prompts, parts, {"sha256": facts.get("sha256"), "version": self.version}

    def _rules(self) -> tuple[Rules, str]:
        from evenhand.data.adjudication import load_texts
        from evenhand.interfaces import Sampling
        from evenhand.methods.adjudication._rounds import Rules
        from evenhand.methods.adjudication._selection import Limits
        from evenhand.methods.adjudication._training import Tuning

        texts, sha = load_texts(self.prompts)
        limits = Limits(
            max_bias=self.max_bias,
            min_helpfulness=self.min_helpfulness,
            max_refusal=self.max_refusal,
            max_disagreement=self.max_disagreement,
        )
        tuning = Tuning(
            objective=self.objective,
            rank=self.rank,
            alpha=2 * self.rank,
            learning_rate=self.learning_rate,
            epochs=self.epochs,
            batch_size=self.batch_size,
            gradient_accumulation_steps=self.gradient_accumulation_steps,
            beta=self.beta,
            seed=self.seed,
        )
        sampling = Sampling(temperature=self.temperature, max_new_tokens=self.max_new_tokens, seed=self.seed)
        return Rules(
            texts=texts,
            limits=limits,
            tuning=tuning,
            sampling=sampling,
            seed=self.seed,
            rounds=self.rounds,
            min_gain=self.min_gain,
            tolerance=self.tolerance,
            revise=self.revise,
            general_share=self.general_fraction,
            everyone=self.trained == "all",
            measures=self.measures,
        ), sha

    def _general(self, data: TrainData | None) -> General:
        from evenhand.methods.adjudication._rounds import General
        from evenhand.prompting.rendering import as_dialogue

        rows = _instructions(self.general) if self.general else []
        questions = data.questions if data else ()
        gold = (data.answers if data else ()) or (None,) * len(questions)
        half = (len(questions) + 1) // 2
        asked = list(questions[:half])
        if rows:  # too many questions would crowd out the other instructions, and what is not practised is forgotten
            asked = Random(self.seed).sample(asked, min(len(asked), -(-len(rows) // 3)))
        rows += [(as_dialogue(q, "letters"), "") for q in asked]
        exam = tuple((q, g) for q, g in zip(questions[half:], gold[half:], strict=True) if g is not None)
        return General(instructions=tuple(rows), exam=exam)

    def _members(self, model: Model) -> list[Member]:
        from evenhand.methods.adjudication._members import Member
        from evenhand.models.loading import load

        out = [Member(model.name, lambda: model, judges=self.peers, given=True)]
        for spec in (*self.pool, *self.judges):
            writes = spec in self.pool
            name = spec if spec != model.name else f"{spec} (pool)"
            out.append(Member(name, lambda s=spec: load(s), writes, not writes or self.peers))  # type: ignore[misc]
        return out


def _instructions(name: str) -> list[tuple[Dialogue, str]]:
    if name == "demo":
        from evenhand.data.adjudication import demo_instructions

        return [(Dialogue((Message("user", prompt),)), "") for prompt in demo_instructions()]
    path = Path(name).expanduser()
    try:
        lines = path.read_text(encoding="utf-8").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        raise DataError(f"cannot read the general instructions {path}: {error}") from error
    out = []
    for n, line in enumerate(lines, start=1):
        if not line.strip():
            continue
        try:
            row = json.loads(line)
            prompt, response = row["prompt"], row.get("response", "")
        except (ValueError, KeyError, TypeError, AttributeError) as error:
            raise DataError(f'{path}:{n}: an object with "prompt", and perhaps "response", was expected') from error
        if not isinstance(prompt, str) or not isinstance(response, str) or not prompt.strip():
            raise DataError(f'{path}:{n}: "prompt" and "response" must be texts')
        out.append((Dialogue((Message("user", prompt),)), response))
    return out


def _copied(folder: Path, output: Path) -> None:
    """Copy data set, page and adapters to the folder that the user chose."""
    output.mkdir(parents=True, exist_ok=True)
    for name in ("dataset", *(p.name for p in folder.glob("round-*"))):
        shutil.copytree(folder / name, output / name, dirs_exist_ok=True)
    for name in ("page.html", "costs.json", "memory.json"):
        shutil.copy2(folder / name, output / name)


def _version() -> str:
    from importlib.metadata import version

    return version("evenhand")
