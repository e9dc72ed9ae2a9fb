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
from typer.core import TyperGroup

from evenhand.cli import (
    card,
    code_consent,
    damaged_run,
    diff,
    launched,
    method_table,
    new,
    planning,
    proving_ground,
    reproduce,
    selection,
    signals,
    spillover,
    sweep,
)
from evenhand.cli import data as cli_data
from evenhand.cli.output import Json, Plugins, facts, fail, load_plugins, show_rich, write, write_records
from evenhand.errors import EvenhandError, SettingsError
from evenhand.renaming import RenamedWarning


class _Commands(TyperGroup):
    """Group of all commands; ends an interrupted one with a message, and SIGTERM with a status of its own."""

    def invoke(self, ctx: Any) -> Any:
        """Run a command; an interruption ends the process with a message that says how to continue."""
        try:
            return super().invoke(ctx)
        except KeyboardInterrupt:
            signals.stop()


app = typer.Typer(
    cls=_Commands,
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
    context: typer.Context,
    version: Annotated[
        bool, typer.Option("--version", callback=_version, is_eager=True, help="Print the version and exit.")
    ] = False,
) -> None:
    """Put social-bias mitigation methods on language models and compare them side by side."""
    launched.refuse_alone(context.invoked_subcommand)


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
        help="letters (most models' default), text, text_per_token, text_with_end or generation; unless the "
        "benchmark or method sets it.",
    ),
]
Temperature = Annotated[
    float | None,
    typer.Option("--temperature", help="Temperature of generated answers, unless the benchmark or method sets it."),
]
Samples = Annotated[
    int | None,
    typer.Option("--samples", help="Number of independent draws per sampled answer; rows are means over draws."),
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
"""Compared if no model is named: methods against social bias and against a preference for answer letters."""
JUDGING = ("margin", "alpha", "family", "replicates", "drop_refused")
"""Options that decide how answers are judged, rather than what is asked."""
Train = Annotated[
    str | None,
    typer.Option(
        "--train",
        help="Training data: a .jsonl or .txt file, a benchmark, 'demo', or several, joined by ' & '.",
    ),
]
Margin = Annotated[
    float | None, typer.Option("--margin", help="Largest loss of capability that is accepted (0.02; on demos 0.05).")
]
Alpha = Annotated[
    float | None,
    typer.Option("--alpha", help="Significance level of the tests (0.05); intervals have level 1 - alpha."),
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
        Path | None, typer.Argument(help="A YAML file with these options; options on the command line override it.")
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
            "--seeds", help="Number of seeds with which methods that have one are repeated; rows are means over seeds."
        ),
    ] = None,
    wordings: Annotated[
        str | None,
        typer.Option("--wordings", help="Wordings to repeat methods with, separated by commas: 'low_1,medium_1'."),
    ] = None,
    drop_refused: Annotated[
        bool | None,
        typer.Option("--drop-refused", help="Leave out, in all rows of a model, the questions that any row refused."),
    ] = None,
    too_long: TooLong = None,
    on: Annotated[
        str | None,
        typer.Option("--on", help="ray: ask the cells on a Ray cluster, at RAY_ADDRESS or on this machine."),
    ] = None,
    workers: Annotated[
        int | None,
        typer.Option("--workers", min=1, help="Number of workers on Ray; default: one per GPU or processor."),
    ] = None,
    full: Full = False,
    as_json: Json = False,
) -> None:
    """Compare methods on models and write a run folder. Without options, it runs the embedded demo."""
    asked = _asked_for(locals())
    plugins = asked.pop("plugins")
    if on not in (None, "ray"):
        raise SettingsError(f"--on {on}: only 'ray' is known; leave it out to run in this process")
    if workers is not None and on is None:
        raise SettingsError(f"--workers {workers}: one process asks one cell at a time; add --on ray")
    _run(asked, as_json, full, None if on is None else _ray_crew(workers, plugins))


def _ray_crew(workers: int | None, plugins: list[str]) -> Any:
    from evenhand.core.text_output import visible
    from evenhand.integrations.ray_crew import RayCrew

    def say(text: str) -> None:
        sys.stderr.write(f"{visible(text)}\n")

    return RayCrew(workers, plugins, say)


def _asked_for(options: dict[str, Any]) -> dict[str, Any]:
    """Collect the options of `compare` from the command line and the run file, and load the plugins.

    Args:
        options: All arguments of the command by name.
    """
    from evenhand.experiment import config

    names = ["methods", "benchmarks", "train", "limit", "seed", "replicates", "answer_by", "temperature", "samples"]
    names += ["seeds", "wordings", "margin", "alpha", "family", "drop_refused"]
    given: dict[str, Any] = {"models": options["model"], **{name: options[name] for name in names}}
    given |= {"out": _text(options["out"]), "cache": _text(options["cache"])}
    plan = {k: v for k, v in given.items() if v is not None}
    run, plugin = options["run"], options["plugin"] or []
    if run is not None:
        read = config.read(run)
        code_consent.require(run, read, plugin, allowed=options["allow_plugins"])
        plan = {**read.model_dump(exclude_unset=True), **plan}
    loading = _loading(**{name: options[name] for name in ("dtype", "device", "device_map", "too_long")})
    plan["load"] = {**plan.get("load", {}), **loading}
    if "answer_by" in plan["load"]:  # as an option of every model, it means the same
        plan = {"answer_by": plan["load"].pop("answer_by"), **plan}
    plan["plugins"] = [*plan.pop("plugins", []), *map(str, plugin)]
    load_plugins(plan["plugins"])
    return plan


def _or_demo(asked: dict[str, Any]) -> dict[str, Any]:
    """Fill in the embedded demo if no model is named."""
    return asked if asked.get("models") else {**DEMO, **asked, "models": ["demo"]}


app.command("plan")(planning.planned(compare, lambda options: _or_demo(_asked_for(options))))


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
    report = None if run is None else Report.load(run)  # a wrong folder fails before training
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
        typer.Option("--max-tokens", min=1, help="Maximum number of tokens in a reply, unless the request sets it."),
    ] = 256,
    limits: Annotated[
        str,
        typer.Option("--limits", help="Limits on requests, such as 'max_body_mib=16, max_queue=100'."),
    ] = "",
    plugin: Plugins = None,
    dtype: Dtype = None,
    device: Device = None,
    device_map: DeviceMap = None,
) -> None:
    """Serve a model, mitigated or not, over the OpenAI protocol."""
    from evenhand.integrations import openai_server

    load_plugins(plugin or [])
    bounds = openai_server.Limits.parse(limits)  # a wrong one fails before loading
    loaded = _mitigated(model, method, **_loading(dtype=dtype, device=device, device_map=device_map))
    told: dict[str, Any] = {"host": host, "port": port, "key_env": key_env, "name": name, "max_tokens": max_tokens}
    openai_server.serve(loaded, **told, limits=bounds, say=write)
    if signals.terminated():  # not after Ctrl-C, which is the usual way to end a server
        signals.stop()


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
        bool, typer.Option("--check", help="Also verify the answer cache, trained artefacts and checkpoints.")
    ] = False,
    plugin: Plugins = None,
    as_json: Json = False,
) -> None:
    """Show the numbers of a run, or the dialogues about one of its items, and report damage in its folder.

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
        bool, typer.Option("--presets", help="Print the settings of every preset, and where its source gives them.")
    ] = False,
) -> None:
    """List the mitigation methods in a table, or show one method's settings, their allowed values, and its presets."""
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
    """List the benchmarks, or show one benchmark's settings."""
    _list("benchmarks", name, plugin, as_json)


@app.command()
def models(
    model: Annotated[str | None, typer.Argument(help="Load this model and print its facts.")] = None,
    as_json: Json = False,
) -> None:
    """List the kinds of models that can be loaded, or print the facts and fingerprint of one model."""
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
    """Run the command line; evenhand's own errors, and Ctrl-C, end it with a one-line message."""
    with signals.heard():
        try:
            _quiet_libraries()
            warnings.showwarning = _show_warning
            app()
        except EvenhandError as error:
            if launched.is_said():
                sys.exit(2)
            fail(str(error), 2)
        except BrokenPipeError:
            sys.stderr.close()
            sys.exit(1)
        except KeyboardInterrupt:
            signals.stop()


def _run(plan: dict[str, Any], as_json: bool, full: bool = False, crew: Any = None) -> None:
    from evenhand.core.hashing import json_hash
    from evenhand.experiment.comparison import compare as run_comparison

    loading = plan.pop("load")
    plan = _or_demo(plan)
    if not plan.get("out"):
        asked = {k: v for k, v in plan.items() if k not in JUDGING}
        plan["out"] = f"runs/{json_hash([asked, loading])[:10]}"  # so that the same command resumes
    with signals.working_in(plan["out"]):
        report = run_comparison(**plan, **loading, refuse_unsupported=True, crew=crew)
    if launched.is_silent():
        return
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
    """Load a model, and apply a method to it if one is given."""
    from evenhand.core import registry
    from evenhand.core.repeats import single
    from evenhand.experiment import refusals, training_data
    from evenhand.models import load

    built = None if method is None else single(registry.build_method(method))  # a wrong name fails before loading
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
    if launched.is_silent():
        return
    from evenhand.core.text_output import visible

    sys.stderr.write(f"warning: {visible(str(message))}\n")  # it may contain text from a model


def _quiet_libraries() -> None:
    """Silence the progress bars and warnings of libraries, which would bury evenhand's own."""
    os.environ.setdefault("TRANSFORMERS_VERBOSITY", "error")
    os.environ.setdefault("HF_HUB_DISABLE_PROGRESS_BARS", "1")
    os.environ.setdefault("TOKENIZERS_PARALLELISM", "true")
    warnings.filterwarnings("ignore", category=FutureWarning)
    warnings.filterwarnings("ignore", category=DeprecationWarning)
    warnings.filterwarnings("default", category=RenamedWarning)  # the old name is in what the user typed


if __name__ == "__main__":
    main()
