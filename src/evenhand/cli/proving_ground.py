"""`evenhand proving-ground`: check the planted biases, and how methods move them."""

from __future__ import annotations

from typing import Annotated

import typer

from evenhand.cli.output import Json, Plugins, facts, fail, load_plugins, show_rich

proving_ground = typer.Typer(
    no_args_is_help=True, help="Check the planted biases of the demo models, and that methods change them as stated."
)


@proving_ground.command("check")
def proving_ground_check(
    model: Annotated[
        list[str] | None, typer.Option("--model", "-m", help="Demo model to measure, such as demo-b; repeatable.")
    ] = None,
    quantity: Annotated[
        list[str] | None, typer.Option("--quantity", help="Quantity to measure, such as letters; repeatable.")
    ] = None,
    as_json: Json = False,
) -> None:
    """Measure every planted quantity of the demo models; exits with 1 if one is outside its tolerance."""
    from evenhand.proving_ground import checking, shown

    with shown.steps() as step:
        found = checking.check(model or (), quantities=quantity or (), progress=step)
    if as_json:
        facts(checking.as_rows(found), as_json)
    else:
        show_rich(shown.check_table(found))
    wrong = [f for f in found if not f.ok]
    if wrong:
        first = f"{wrong[0].model}, {wrong[0].quantity}, {wrong[0].group}"
        fail(f"{len(wrong)} of {len(found)} quantities are not as planted, the first: {first}", 1)


@proving_ground.command("effects")
def proving_ground_effects(
    methods: Annotated[
        str | None, typer.Option("--methods", help="Methods, separated by commas; default: all that have a statement.")
    ] = None,
    plugin: Plugins = None,
    as_json: Json = False,
) -> None:
    """Check methods against their statements: what must change, and what must stay; exits with 1 if one fails."""
    from evenhand.proving_ground import checking, shown, statements

    load_plugins(plugin or [])
    names = [name.strip() for name in methods.split(",")] if methods else []
    with shown.steps() as step:
        found = statements.effects(names, progress=step)
    if as_json:
        facts(checking.as_rows(found), as_json)
    else:
        show_rich(shown.effects_table(found))
    wrong = [name for name, ok in statements.verdicts(found).items() if not ok]
    if wrong:
        fail(f"not as stated: {', '.join(wrong)}", 1)
