"""The command line `evenhand`: compare, evaluate, debias, serve, show, methods, benchmarks, models, data, new ...

Heavy modules are imported inside the commands, so that help is instant.
"""

from __future__ import annotations

import os
import sys
import warnings
from pathlib import Path
from typing import Annotated, Any

import typer

from evenhand.cli import (
    card,
    code_consent,
    damaged_run,
    diff,
    method_table,
    new,
    proving_ground,
    reproduce,
    selection,
    spillover,
    sweep,
)
from evenhand.cli import data as cli_data
from evenhand.cli.output import Json, Plugins, facts, fail, load_plugins, show_rich, stopped, write, write_records
from evenhand.errors import EvenhandError, SettingsError
from evenhand.renaming import RenamedWarning

app = typer.Typer(
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
)

app.add_typer(cli_data.data, name="data")
app.add_typer(proving_ground.proving_ground, name="proving-ground")
app.add_typer(new.new, name="new")


def _version(wanted: bool) -> None:
    if wanted:
        from importlib.metadata import version

        write(f"evenhand {version('evenhand')}")
        raise typer.Exit()


@app.callback()
def evenhand(
    version: Annotated[
        bool, typer.Option("--version", callback=_version, is_eager=True, help="Print the version and exit.")
    ] = False,
) -> None:
    """Put social-bias mitigation methods on language models and compare them side by side."""


Out = Annotated[Path | None, typer.Option("--out", help="Run folder; a run that was stopped is resumed from it.")]
Limit = Annotated[
    int | None, typer.Option("--limit", help="Maximum number of items per benchmark; the seed decides which.")
]
Seed = Annotated[int, typer.Option("--seed", help="Seed of the selection of items and of the bootstrap.")]
Benchmarks = Annotated[
    str, typer.Option("--benchmarks", help="Benchmarks, separated by commas, such as 'bbq(convention=helm)', or 'all'.")
]
Dtype = Annotated[str | None, typer.Option("--dtype", help="float32, bfloat16, float16 or auto.")]
Device = Annotated[str | None, typer.Option("--device", help="cpu, cuda, cuda:1, mps.")]
DeviceMap = Annotated[
    str | None, typer.Option("--device-map", help="How to place the model, such as auto: spread over all GPUs.")
]
AnswerBy = Annotated[
    str | None,
    typer.Option(
        "--answer-by",
        help="letters (most models' default), text, text_per_token, text_with_end or generation; where neither "
        "benchmark nor method says otherwise.",
    ),
]
Temperature = Annotated[
    float | None,
    typer.Option("--temperature", help="Temperature of generated answers, where neither benchmark nor method sets it."),
]
Samples = Annotated[
    int | None,
    typer.Option("--samples", help="Number of independent draws of every sampled answer; rows are their means."),
]
DEMO = {
    "methods": [
        "self_debias",
        "instruction",
        "self_debias_decoding",
        "moral_self_correction",
        "intent_self_correction",
        "permutation",
        "pride",
    ],
    "benchmarks": "bbq(source=demo),mmlu(source=demo)",
}
"""What is compared where nothing is asked for: methods against social bias and against a preference for letters."""
JUDGING = ("margin", "alpha", "family", "replicates", "drop_refused")
"""Options that decide how answers are judged, and not what is asked."""
Train = Annotated[
    str | None,
    typer.Option(
        "--train",
        help="Training data: a .jsonl or .txt file, a benchmark, 'demo', or several, joined by ' & '.",
    ),
]
Margin = Annotated[
    float | None, typer.Option("--margin", help="Largest loss of capability that is accepted (0.02; the demo: 0.05).")
]
Alpha = Annotated[
    float | None,
    typer.Option("--alpha", help="Significance level of the tests (0.05); intervals have the level 1 - alpha."),
]
FamilyOption = Annotated[
    str | None, typer.Option("--family", help="Which tests are adjusted together: metric (default), benchmark or run.")
]
Full = Annotated[bool, typer.Option("--full", help="Print all tables and verdicts below the leaderboard.")]
TooLong = Annotated[
    str | None,
    typer.Option("--too-long", help="What to do with items longer than the context: error (default) or skip."),
]


@app.command()
def compare(
    run: Annotated[
        Path | None, typer.Argument(help="A YAML file with all of these options; options given here override it.")
    ] = None,
    model: Annotated[
        list[str] | None,
        typer.Option("--model", "-m", help="Hub name, folder, endpoint:URL#name or demo; repeatable. Default: demo."),
    ] = None,
    methods: Annotated[
        str | None,
        typer.Option(
            "--methods", help="Methods, separated by commas, such as 'self_debias(variant=explanation)', or 'all'."
        ),
    ] = None,
    benchmarks: Annotated[
        str | None, typer.Option("--benchmarks", help="Benchmarks, separated by commas, or 'all'.")
    ] = None,
    train: Train = None,
    out: Out = None,
    limit: Annotated[int | None, typer.Option("--limit", help="Maximum number of items per benchmark.")] = None,
    seed: Annotated[
        int | None, typer.Option("--seed", help="Seed of the selection of items and of the bootstrap.")
    ] = None,
    replicates: Annotated[int | None, typer.Option("--replicates", help="Number of bootstrap replicates.")] = None,
    margin: Margin = None,
    alpha: Alpha = None,
    family: FamilyOption = None,
    cache: Annotated[Path | None, typer.Option("--cache", help="Share one answer cache between runs.")] = None,
    plugin: Plugins = None,
    allow_plugins: code_consent.AllowPlugins = False,
    dtype: Dtype = None,
    device: Device = None,
    device_map: DeviceMap = None,
    answer_by: AnswerBy = None,
    temperature: Temperature = None,
    samples: Samples = None,
    seeds: Annotated[
        int | None,
        typer.Option(
            "--seeds", help="Number of seeds to repeat methods with, where they have a seed; rows are their means."
        ),
    ] = None,
    wordings: Annotated[
        str | None,
        typer.Option("--wordings", help="Wordings to repeat methods with, separated by commas: 'low_1,medium_1'."),
    ] = None,
    drop_refused: Annotated[
        bool | None,
        typer.Option("--drop-refused", help="Leave questions that any row refused out of all rows of the model."),
    ] = None,
    too_long: TooLong = None,
    full: Full = False,
    as_json: Json = False,
) -> None:
    """Compare methods on models and write a run folder. Without any option: the embedded demo."""
    from evenhand.experiment import config

    given: dict[str, Any] = {
        "models": model,
        "methods": methods,
        "benchmarks": benchmarks,
        "train": train,
        "limit": limit,
        "seed": seed,
    }
    given |= {"replicates": replicates, "out": _text(out), "cache": _text(cache)}
    given |= {"answer_by": answer_by, "temperature": temperature, "samples": samples}
    given |= {"seeds": seeds, "wordings": wordings, "margin": margin, "alpha": alpha, "family": family}
    given |= {"drop_refused": drop_refused}
    plan = {k: v for k, v in given.items() if v is not None}
    if run is not None:
        read = config.read(run)
        code_consent.require(run, read, plugin or [], allowed=allow_plugins)
        plan = {**read.model_dump(exclude_unset=True), **plan}
    loading = _loading(dtype=dtype, device=device, device_map=device_map, too_long=too_long)
    plan["load"] = {**plan.get("load", {}), **loading}
    if "answer_by" in plan["load"]:  # an option of every model, which says the same
        plan = {"answer_by": plan["load"].pop("answer_by"), **plan}
    load_plugins([*plan.pop("plugins", []), *(plugin or [])])
    _run(plan, as_json, full)


@app.command()
def evaluate(
    model: Annotated[str, typer.Argument(help="Hub name, folder, endpoint:URL#name or demo.")],
    benchmarks: Benchmarks = "all",
    out: Out = None,
    limit: Limit = None,
    seed: Seed = 0,
    plugin: Plugins = None,
    dtype: Dtype = None,
    device: Device = None,
    device_map: DeviceMap = None,
    answer_by: AnswerBy = None,
    temperature: Temperature = None,
    samples: Samples = None,
    too_long: TooLong = None,
    full: Full = False,
    as_json: Json = False,
) -> None:
    """Score one model as it is, without any method."""
    load_plugins(plugin or [])
    loading = _loading(dtype=dtype, device=device, device_map=device_map, too_long=too_long)
    plan = {"models": [model], "methods": "none", "benchmarks": benchmarks, "out": _text(out), "limit": limit}
    reading = _loading(answer_by=answer_by, temperature=temperature, samples=samples)
    _run({**plan, "seed": seed, **reading, "load": loading}, as_json, full)


app.command()(sweep.sweep)
app.command()(spillover.spillover)
app.command()(reproduce.reproduce)


@app.command()
def debias(
    model: Annotated[str, typer.Argument(help="Hub name, folder or endpoint:URL#name.")],
    method: Annotated[str, typer.Argument(help="The method, such as self_debias, or a stack a+b.")],
    out: Annotated[Path, typer.Option("--out", help="Folder for the mitigated model; evenhand.load opens it.")],
    train: Train = None,
    plugin: Plugins = None,
    dtype: Dtype = None,
    device: Device = None,
    run: card.Run = None,
) -> None:
    """Apply a method and save the mitigated model, with a model card."""
    from evenhand.models.saved import how_to_load
    from evenhand.report import Report
    from evenhand.report.model_card import has_other_card

    load_plugins(plugin or [])
    report = None if run is None else Report.load(run)  # a wrong folder costs no training
    keep = has_other_card(out)
    saved = _mitigated(model, method, train, **_loading(dtype=dtype, device=device)).save(out)
    write(f"saved {model} under {method} to {saved}\nload it with: {how_to_load(saved)}")
    card.write_new_card(saved, train, report, keep=keep)


app.command()(card.card)
app.command()(diff.diff)


@app.command()
def serve(
    model: Annotated[str, typer.Argument(help="Hub name, folder (also of a mitigated model) or demo.")],
    method: Annotated[
        str | None, typer.Option("--method", help="The method, such as self_debias, or a stack a+b.")
    ] = None,
    host: Annotated[str, typer.Option("--host", help="Address to listen on.")] = "127.0.0.1",
    port: Annotated[
        int, typer.Option("--port", min=0, max=65535, help="Port to listen on; 0 takes a free one.")
    ] = 8000,
    key_env: Annotated[
        str | None, typer.Option("--key-env", help="Environment variable with the key that clients must send.")
    ] = None,
    name: Annotated[
        str | None, typer.Option("--name", help="Name that clients use for the model; default: its own.")
    ] = None,
    max_tokens: Annotated[
        int,
        typer.Option("--max-tokens", min=1, help="Maximum number of tokens in a reply, where the request sets none."),
    ] = 256,
    limits: Annotated[
        str,
        typer.Option("--limits", help="What requests may take, such as 'max_body_mib=16, max_queue=100'."),
    ] = "",
    plugin: Plugins = None,
    dtype: Dtype = None,
    device: Device = None,
    device_map: DeviceMap = None,
) -> None:
    """Serve a model, mitigated or not, by the OpenAI protocol."""
    from evenhand.integrations import openai_server

    load_plugins(plugin or [])
    bounds = openai_server.Limits.parse(limits)  # a wrong one costs no loading
    loaded = _mitigated(model, method, **_loading(dtype=dtype, device=device, device_map=device_map))
    told: dict[str, Any] = {"host": host, "port": port, "key_env": key_env, "name": name, "max_tokens": max_tokens}
    openai_server.serve(loaded, **told, limits=bounds, say=write)


@app.command()
def show(
    run: Annotated[Path, typer.Argument(help="A run folder.")],
    group: Annotated[str, typer.Option("--group", help="Group to show, such as Age; 'all' shows every group.")] = "",
    item: Annotated[
        str, typer.Option("--item", help="Print the whole dialogues that led to this item's answers.")
    ] = "",
    method: Annotated[
        str, typer.Option("--method", help="Show this method and its baseline only; with --item, its dialogues.")
    ] = "",
    full: Full = False,
    form: Annotated[
        str, typer.Option("--format", help="Print the tables as csv, latex or markdown, or the sources as bibtex.")
    ] = "",
    check: Annotated[
        bool, typer.Option("--check", help="Also verify the answer cache, what was trained and checkpoints.")
    ] = False,
    plugin: Plugins = None,
    as_json: Json = False,
) -> None:
    """Show the numbers of a run, or the dialogues about one of its items, and say what is damaged in its folder.

    --json prints one record per model, method, benchmark, metric and group, or the dialogues.
    """
    if form and (item or as_json or full):
        raise SettingsError(f"--format {form} prints tables for another program: leave out --item, --json and --full")
    load_plugins(plugin or [])
    with damaged_run.in_words(run):
        report = damaged_run.opened(run, item=item, as_json=as_json, thorough=check)
        if method and not item:
            report = selection.only_method(report, method)
        if item:
            found = report.transcripts(item, method=method)
            if as_json:
                write_records(found)
            else:
                write("\n\n".join(map(str, found)))
        elif as_json:
            write_records([r for r in report.records if not group or group in ("all", r.group)])
        elif form:
            write(report.export(form, group).rstrip("\n"))
        else:
            show_rich(report.rendered(group or "overall", full=full))


@app.command()
def methods(
    name: Annotated[str | None, typer.Argument(help="Print the settings of this method.")] = None,
    plugin: Plugins = None,
    as_json: Json = False,
    presets: Annotated[
        bool, typer.Option("--presets", help="Print what every preset sets, and where that stands in its source.")
    ] = False,
) -> None:
    """List the mitigation methods in a table, or one method's settings with the values that they take, and presets."""
    from evenhand.core import catalogue

    if presets:
        load_plugins(plugin or [])
        _presets(name, as_json)
        return
    if name is not None:
        _list("methods", name, plugin, as_json)
        return
    load_plugins(plugin or [])
    if as_json:
        facts({m.name: m._asdict() for m in catalogue.methods()}, as_json)
    else:
        method_table.print_methods(catalogue.methods())


def _presets(name: str | None, as_json: bool) -> None:
    from evenhand.cli import presets

    if as_json:
        write_records(presets.rows(name))
    else:
        write(presets.table(name))


@app.command()
def benchmarks(
    name: Annotated[str | None, typer.Argument(help="Print the settings and metrics of this benchmark.")] = None,
    plugin: Plugins = None,
    as_json: Json = False,
) -> None:
    """List the benchmarks, or one benchmark's settings."""
    _list("benchmarks", name, plugin, as_json)


@app.command()
def models(
    model: Annotated[str | None, typer.Argument(help="Load this model and print its facts.")] = None,
    as_json: Json = False,
) -> None:
    """List what can be loaded, or print the facts and fingerprint of one model."""
    if model is None:
        from evenhand.cli import catalogue

        facts(catalogue.model_forms(), as_json)
        return
    from evenhand.models import load

    loaded = load(model)
    facts({**loaded.facts(), "fingerprint": loaded.fingerprint}, as_json)


@app.command()
def doctor(as_json: Json = False) -> None:
    """Check this installation: versions and their known effects on numbers, accelerator, data, plugins."""
    from evenhand.cli import catalogue

    facts(catalogue.doctor(), as_json)


def main() -> None:
    """Entry point: errors made on purpose are one clear line."""
    _quiet_libraries()
    warnings.showwarning = _show_warning
    try:
        app()
    except EvenhandError as error:
        fail(str(error), 2)
    except BrokenPipeError:
        sys.stderr.close()
        sys.exit(1)


def _run(plan: dict[str, Any], as_json: bool, full: bool = False) -> None:
    from evenhand.core.hashing import json_hash
    from evenhand.experiment.comparison import compare as run_comparison

    loading = plan.pop("load")
    if not plan.get("models"):
        plan = {**DEMO, **plan, "models": ["demo"]}
    if not plan.get("out"):
        asked = {k: v for k, v in plan.items() if k not in JUDGING}
        plan["out"] = f"runs/{json_hash([asked, loading])[:10]}"  # the same command resumes
    try:
        report = run_comparison(**plan, **loading, refuse_unsupported=True)
    except KeyboardInterrupt:
        stopped(plan["out"])
    if as_json:
        write_records(report.records)
    else:
        show_rich(report.rendered(full=full))
        write(
            f"written to {plan['out']}: report.html, summary.md, intervals.png, scores.parquet, answers/, manifest.json"
        )
    failed = {(r.model, r.method, r.benchmark): r.note for r in reversed(report.records) if r.status == "failed"}
    if failed:
        first = next(reversed(failed.values()))
        fail(f"{len(failed)} of the comparisons failed, the first: {first}", 1)
    if report.records and all(r.status == "not applicable" for r in report.records):
        fail(f"nothing could be asked: {report.records[0].note}", 1)


def _mitigated(model: str, method: str | None, train: str | None = None, **loading: Any) -> Any:
    """The model under a method; the model itself without one."""
    from evenhand.core import registry
    from evenhand.core.repeats import single
    from evenhand.experiment import refusals, training_data
    from evenhand.models import load

    built = None if method is None else single(registry.build_method(method))  # a wrong name costs no loading
    data = None if train is None else training_data.load(train).data
    if built is not None:
        refusals.refuse(refusals.training_reasons([built], train, data))
    base = load(model, **loading)
    if built is None:
        return base
    if reason := built.unsupported_reason(base, data):
        raise SettingsError(reason)
    return built.apply(base, data)


def _list(kind: str, name: str | None, plugin: list[Path] | None, as_json: bool) -> None:
    from evenhand.cli import catalogue
    from evenhand.core.catalogue import listing

    load_plugins(plugin or [])
    facts(listing(kind) if name is None else catalogue.entry(kind, name), as_json)


def _loading(**options: Any) -> dict[str, Any]:
    return {k: v for k, v in options.items() if v is not None}


def _text(path: Path | None) -> str | None:
    return None if path is None else str(path)


def _show_warning(message: Any, category: type, *_: Any, **__: Any) -> None:
    from evenhand.core.text_output import visible

    sys.stderr.write(f"warning: {visible(str(message))}\n")  # a model's own words may stand in it


def _quiet_libraries() -> None:
    """Our own progress and messages suffice; those of the libraries below only hide them."""
    os.environ.setdefault("TRANSFORMERS_VERBOSITY", "error")
    os.environ.setdefault("HF_HUB_DISABLE_PROGRESS_BARS", "1")
    os.environ.setdefault("TOKENIZERS_PARALLELISM", "true")
    warnings.filterwarnings("ignore", category=FutureWarning)
    warnings.filterwarnings("ignore", category=DeprecationWarning)
    warnings.filterwarnings("default", category=RenamedWarning)  # what was typed has the old name


if __name__ == "__main__":
    main()
