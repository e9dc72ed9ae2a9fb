"""Both ways between evenhand and lm-evaluation-harness: its tasks on our models, and our results in its format.

    import lm_eval
    from evenhand.integrations.lm_eval import as_lm, write_results
    lm_eval.simple_evaluate(as_lm(model), tasks=["arc_easy"])
    write_results(report, "results")

Asking needs the extra `lm-eval` (pip install "evenhand[lm-eval]"); writing does not. Made for lm-eval 0.4.9 and later.
"""

from __future__ import annotations

import importlib
import json
import math
import re
import time
import warnings
from collections.abc import Mapping, Sequence
from datetime import datetime
from pathlib import Path
from types import SimpleNamespace
from typing import Any, Literal

from evenhand.core import file_io, provenance
from evenhand.core.records import BASELINE, Record
from evenhand.core.stop_strings import first_stop
from evenhand.errors import RunError, SettingsError
from evenhand.interfaces import AnswerBy, Choice, Dialogue, Message, Model, Passage, Question, Sampling
from evenhand.prompting.rendering import BY_TEXT, BareText
from evenhand.report import Report
from evenhand.report.cost import COST_NAMES

MultipleChoice = Literal["score", "choose"]
OPEN, CLOSE = "\x02evenhand dialogue ", "\x03"
"""Marks around a dialogue in JSON, as the harness passes contexts on as plain text."""
LENGTHS = ("max_gen_toks", "max_new_tokens", "max_tokens")


# ----------------------------------------------------------------------------------- its tasks on our models


def as_lm(model: Model, *, multiple_choice: MultipleChoice = "score", answer_by: AnswerBy = "text") -> Any:
    """Wrap a model, mitigated or not, as an `lm_eval.api.model.LM` for `lm_eval.simple_evaluate`.

    Args:
        model: The model to ask. Its verbs are called once per kind of request, with all requests.
        multiple_choice: "score" answers each request by the log-probability of its continuation, as the harness
            expects; a method that changes only how a model chooses has no effect. "choose" makes one question of the
            continuations that share a document and a context, puts it to `Model.choose`, and answers with the log of
            each option's probability (0 and -inf if only a decision is known). Only the metric `acc` is then
            meaningful: `acc_norm` would divide these logarithms by the options' lengths.
        answer_by: How such a question is answered: "text", "text_per_token" and "text_with_end" score the
            continuations, and the context is all that the model is shown; "letters" and "generation" show them as
            lettered options too.

    Raises:
        SettingsError: lm-eval is not installed, or the model cannot choose although it is asked to.
    """
    if multiple_choice not in ("score", "choose"):
        raise SettingsError(f"multiple_choice={multiple_choice!r}: give 'score' or 'choose'")
    if multiple_choice == "choose" and "choose" not in model.abilities:
        raise SettingsError(f"{model.name} cannot choose; take multiple_choice='score'")
    try:
        base = importlib.import_module("lm_eval.api.model").LM
    except ImportError as error:
        raise SettingsError(f'lm-eval is not installed ({error}); pip install "evenhand[lm-eval]"') from error
    return type("EvenhandLM", (_Bridge, base), {})(model, multiple_choice, answer_by)


class _Bridge:
    """The harness's verbs in terms of ours; `as_lm` combines it with the harness's base class."""

    def __init__(self, model: Model, multiple_choice: MultipleChoice, answer_by: AnswerBy) -> None:
        super().__init__()
        self.model, self.multiple_choice, self.answer_by = model, multiple_choice, answer_by
        self.config = SimpleNamespace(_name_or_path=model.name)  # where the harness looks for a name

    def loglikelihood(self, requests: Sequence[Any]) -> list[tuple[float, bool]]:
        """Return the log-probability of each continuation, and True only for an option that was chosen."""
        asked = [(str(r.args[0]), str(r.args[1])) for r in requests]
        out: dict[int, tuple[float, bool]] = {}
        if self.multiple_choice == "choose":
            out = self._chosen(requests, asked)
        elif _alone(requests):
            warnings.warn(
                "some documents have a single continuation, and it is not known whether the model would write it: "
                "their 'acc' (such as lambada's) is 0 for every model; their perplexity is right",
                UserWarning,
                stacklevel=2,
            )
        rest = [i for i in range(len(asked)) if i not in out]
        texts = [Passage(asked[i][1], _prompt(asked[i][0]), id=_name(requests[i])) for i in rest]
        out |= {i: (value, False) for i, value in zip(rest, self._scores(texts), strict=True)}
        return [out[i] for i in range(len(asked))]

    def loglikelihood_rolling(self, requests: Sequence[Any]) -> list[float]:
        """Return the log-probability of each text; a text that does not fit the context is an error, and never cut."""
        return self._scores([Passage(str(r.args[0]), id=_name(r)) for r in requests])

    def generate_until(self, requests: Sequence[Any]) -> list[str]:
        """Write each reply: to a dialogue if the request went through `apply_chat_template`, else as a continuation."""
        groups: dict[Sampling, list[int]] = {}
        for i, request in enumerate(requests):
            groups.setdefault(_sampling(request.args[1]), []).append(i)
        draws: dict[tuple[Sampling, str], int] = {}
        out: dict[int, str] = {}
        for sampling, rows in groups.items():
            dialogues = []
            for i in rows:  # a repeated request asks for another sample
                context = str(requests[i].args[0])
                draw = draws[sampling, context] = draws.get((sampling, context), -1) + 1
                dialogues.append(_dialogue(context, draw))
            replies = self.model.generate(dialogues, sampling)
            out |= {i: _cut(r.text or "", sampling.stop) for i, r in zip(rows, replies, strict=True)}
            lost = [r.note for r in replies if r.text is None]
            if lost:
                warnings.warn(
                    f"{len(lost)} requests got no reply and count as empty: {lost[0]}", UserWarning, stacklevel=2
                )
        return [out[i] for i in range(len(requests))]

    def apply_chat_template(self, chat_history: Sequence[Mapping[str, str]], add_generation_prompt: bool = True) -> str:
        """Serialise a dialogue, so that the model's own template is applied to it later.

        Raises:
            SettingsError: The assistant's turn is to begin with given words.
        """
        if not add_generation_prompt:
            raise SettingsError("evenhand cannot begin the assistant's turn; run the task without its gen_prefix")
        turns = [[turn["role"], turn["content"]] for turn in chat_history]
        return f"{OPEN}{json.dumps(turns)}{CLOSE}"

    def chat_template(self, chat_template: bool | str = False) -> str:
        """Describe the template for the harness, which only records it; the model applies its own."""
        return "the model's own, applied by evenhand" if chat_template else ""

    @property
    def tokenizer_name(self) -> str:
        """Name of what decides the prompts, for the harness's cache of requests."""
        return f"evenhand {self.model.fingerprint}"

    def get_model_info(self) -> dict[str, Any]:
        """Return facts for the harness's results."""
        facts = self.model.facts()
        return {**_size(facts), "model_sha": self.model.fingerprint, "evenhand": facts}

    def _scores(self, texts: Sequence[Passage]) -> list[float]:
        """Score texts; an empty text has probability 1."""
        full = [i for i, passage in enumerate(texts) if passage.continuation.strip()]
        found = self.model.score([texts[i] for i in full]) if full else []
        values = dict(zip(full, found, strict=True))
        return [values[i].logprob if i in values else 0.0 for i in range(len(texts))]

    def _chosen(self, requests: Sequence[Any], asked: Sequence[tuple[str, str]]) -> dict[int, tuple[float, bool]]:
        """Answer the requests that together form a question."""
        groups: dict[tuple[Any, Any, str], list[int]] = {}
        for i, request in enumerate(requests):
            if request.doc_id is not None and asked[i][0]:
                groups.setdefault((request.task_name, request.doc_id, asked[i][0]), []).append(i)
        options = {key: list(dict.fromkeys(asked[i][1] for i in rows)) for key, rows in groups.items()}
        keys = [key for key in groups if len(options[key]) > 1]
        choices = self.model.choose([self._question(key, options[key]) for key in keys]) if keys else []
        open_ = [c for c in choices if c.decision is None]
        if open_:
            warnings.warn(
                f"{len(open_)} of {len(choices)} questions have no answer ({open_[0].note or open_[0].status}); all "
                "their options count as equally likely, of which the harness takes the first",
                UserWarning,
                stacklevel=3,
            )
        out: dict[int, tuple[float, bool]] = {}
        for key, choice in zip(keys, choices, strict=True):
            values = _logarithms(choice, len(options[key]))
            for i in groups[key]:
                at = options[key].index(asked[i][1])
                out[i] = (values[at], choice.decision == at)
        return out

    def _question(self, key: tuple[Any, Any, str], options: Sequence[str]) -> Question:
        name, context = f"{key[0]} {key[1]}", key[2]
        shown = tuple(option.strip() for option in options)
        dialogue = _prompt(context)
        if isinstance(dialogue, Dialogue):
            return Question(name, "", shown, dialogue=dialogue, answer_by=self.answer_by)
        template = "bare" if self.answer_by in BY_TEXT else "letters"
        return Question(name, context, shown, template=template, answer_by=self.answer_by)


def _alone(requests: Sequence[Any]) -> bool:
    """Whether some document has only one continuation."""
    seen: dict[tuple[Any, Any], set[tuple[str, str]]] = {}
    for r in requests:
        seen.setdefault((r.task_name, r.doc_id), set()).add((str(r.args[0]), str(r.args[1])))
    return any(len(texts) == 1 for (_, document), texts in seen.items() if document is not None)


def _name(request: Any) -> str:
    return f"{request.task_name or 'request'} {request.doc_id if request.doc_id is not None else request.idx}"


def _prompt(context: str) -> str | Dialogue:
    """Convert a context for `Model.score`."""
    return _dialogue(context) if context.startswith(OPEN) else context


def _dialogue(context: str, draw: int = 0) -> Dialogue:
    if not context.startswith(OPEN):
        return BareText((Message("user", context),), draw)
    written, _, rest = context.removeprefix(OPEN).partition(CLOSE)
    if rest.strip():
        raise SettingsError(f"evenhand cannot begin the assistant's turn with {rest!r}; run without gen_prefix")
    return Dialogue(tuple(Message(role, content) for role, content in json.loads(written)), draw)


def _sampling(given: Mapping[str, Any]) -> Sampling:
    """Convert the harness's generation settings to ours.

    Raises:
        SettingsError: Our sampler does not know a setting, and would have to ignore it.
    """
    known = ("until", "do_sample", "temperature", "top_p", *LENGTHS)
    unknown = [k for k, v in given.items() if k not in known and v is not None]
    if unknown:
        raise SettingsError(f"generation settings {', '.join(unknown)} are not supported; known: {', '.join(known)}")
    until = given.get("until") or ()
    temperature = float(given.get("temperature") or 0.0)
    if given.get("do_sample") is False:
        temperature = 0.0
    elif given.get("do_sample") and "temperature" not in given:
        temperature = 1.0
    length = next((int(given[k]) for k in LENGTHS if given.get(k)), 256)
    stop = (until,) if isinstance(until, str) else tuple(str(s) for s in until)
    top_p = float(given.get("top_p") or 1.0)
    return Sampling(temperature, length, top_p, stop=tuple(s for s in stop if s))


def _cut(text: str, stop: Sequence[str]) -> str:
    """Cut a text at its first stop string, as not every model stops by itself."""
    return text[: first_stop(text, stop)]


def _logarithms(choice: Choice, count: int) -> list[float]:
    if choice.decision is None:
        return [-math.log(count)] * count
    if choice.probabilities is None:
        return [0.0 if at == choice.decision else -math.inf for at in range(count)]
    return [math.log(p) if p > 0 else -math.inf for p in choice.probabilities]


def _size(facts: Mapping[str, Any]) -> dict[str, Any]:
    names = {"model_num_parameters": "parameters", "model_dtype": "dtype"}
    return {theirs: facts[ours] for theirs, ours in names.items() if ours in facts}


# ------------------------------------------------------------------------------------ our results in its format


def write_results(
    results: Report | Sequence[Record], folder: str | Path, manifest: Mapping[str, Any] | None = None
) -> list[Path]:
    """Write results as the harness's own results files, one per model and method: FOLDER/NAME/results_TIME.json.

    A benchmark is a group whose subtasks are its own groups; the filter is "none". Standard errors are those of the
    records (over clusters), and "N/A" if there is no interval. Metrics without a value and costs are left out.

    Args:
        results: A report, or the records of one.
        folder: Folder to write to; made if missing, and nothing in it is replaced.
        manifest: Facts of the run, if only records are given.

    Returns:
        Paths of the files.

    Raises:
        SettingsError: There is no number to write.
        RunError: The folder cannot be written to.
    """
    facts: Mapping[str, Any] = results.manifest if isinstance(results, Report) else manifest or {}
    sides: dict[tuple[str, str], list[Record]] = {}
    for record in results.records if isinstance(results, Report) else results:
        if record.metric not in COST_NAMES:  # in the harness, metrics measure how good a model is
            sides.setdefault((record.model, record.method), []).append(record)
    sides = {key: mine for key, mine in sides.items() if any(r.metric for r in mine)}
    if not sides:
        raise SettingsError("there is no number to write: no benchmark was scored")
    stamp = datetime.now().isoformat().replace(":", "-")
    paths = []
    for (model, method), mine in sides.items():
        name = model if method == BASELINE else f"{model}+{method}"
        safe = re.sub(r'["<>:/|\\?*\[\]]+', "__", name)
        content = {**_tables(mine, facts), **_about(model, method, name, safe, mine, facts)}
        paths.append(_written(Path(folder) / safe / f"results_{stamp}.json", content))
    return paths


def _tables(records: Sequence[Record], facts: Mapping[str, Any]) -> dict[str, Any]:
    """Return everything that the harness records per task."""
    out: dict[str, dict[str, Any]] = {
        key: {} for key in ("results", "groups", "group_subtasks", "configs", "versions", "n-shot", "higher_is_better")
    }
    out["n-samples"] = {}
    described = facts.get("benchmarks", {})
    for record in records:
        if not record.metric or math.isnan(record.value):
            continue
        benchmark = _task(record.benchmark)
        overall = record.group == "overall"
        task = benchmark if overall else f"{benchmark}_{_task(record.group)}"
        about = described.get(record.benchmark, {})
        chosen = about.get("settings", {})
        if task not in out["results"]:
            out["results"][task] = {"name": task, "alias": record.benchmark if overall else record.group}
            out["versions"][task] = provenance.versions().get("evenhand")
            out["n-shot"][task] = chosen.get("shots", 0)
            out["higher_is_better"][task] = {}
            out["configs"][task] = {"task": task, "output_type": "evenhand", "metadata": {"settings": chosen}}
            subtasks = out["group_subtasks"].setdefault(benchmark, [])
            subtasks += [] if overall else [task]
        entry = out["results"][task]
        entry[f"{record.metric},none"] = record.value
        error = record.standard_error
        entry[f"{record.metric}_stderr,none"] = "N/A" if math.isnan(error) else error
        entry["sample_len"] = max(int(record.n), entry.get("sample_len", 0))
        out["higher_is_better"][task][record.metric] = {"higher": True, "lower": False}.get(record.direction)
        effective = about.get("asked", entry["sample_len"]) if overall else entry["sample_len"]
        original = effective if overall and facts.get("limit") is None else None
        out["n-samples"][task] = {"original": original, "effective": effective}
    out["groups"] = {
        t: out["results"][t] for t, below in out["group_subtasks"].items() if below and t in out["results"]
    }
    return out


def _about(
    model: str, method: str, name: str, safe: str, records: Sequence[Record], facts: Mapping[str, Any]
) -> dict[str, Any]:
    """Return what the harness records of the model and the run, and what evenhand adds."""
    described = facts.get("models", {}).get(model, {})
    seed, versions = facts.get("seed"), facts.get("versions") or provenance.versions()
    config = {
        "model": "evenhand",
        "model_args": {"model": model, "method": method},
        **_size(described),
        "model_sha": described.get("fingerprint"),
        "batch_size": None,
        "batch_sizes": [],
        "device": described.get("device"),
        "use_cache": None,
        "limit": facts.get("limit"),
        "bootstrap_iters": None,
        "gen_kwargs": None,
        **dict.fromkeys(("random_seed", "numpy_seed", "torch_seed", "fewshot_seed"), seed),
    }
    return {
        "config": config,
        "git_hash": (facts.get("git") or {}).get("commit"),
        "date": _epoch(facts.get("started")),
        "transformers_version": versions.get("transformers"),
        "evenhand_version": versions.get("evenhand"),
        "model_source": "evenhand",
        "model_name": name,
        "model_name_sanitized": safe,
        "system_instruction": None,
        "chat_template": described.get("prompt_format"),
        "task_hashes": {},
        "total_evaluation_time_seconds": str(facts.get("seconds", "")),
        "stderr": "delete-one-cluster jackknife, or bootstrap over clusters; 0 where no cluster differs",
        "not_scored": {r.benchmark: f"{r.status}: {r.note}" for r in records if not r.metric},
    }


def _task(text: str) -> str:
    return re.sub(r"\W+", "_", text).strip("_")


def _epoch(started: Any) -> float:
    try:
        return datetime.fromisoformat(str(started)).timestamp()
    except ValueError:
        return time.time()


def _written(path: Path, content: Mapping[str, Any]) -> Path:
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        file_io.write_text(path, json.dumps(content, indent=2, ensure_ascii=False, default=str))
    except OSError as error:
        raise RunError(f"cannot write {path}: {error.strerror or error}") from error
    return path
