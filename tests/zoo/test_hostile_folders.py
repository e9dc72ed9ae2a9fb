"""Hostile model folders are refused by name, or opened without what they want; nothing of theirs runs or is read."""

from __future__ import annotations

import resource
import shutil
import subprocess
import sys
import warnings
from pathlib import Path
from typing import Any

import jinja2
import pytest
from tests.zoo.animals import FOLDERS, Animal, Place, template
from tests.zoo.watch import left, watched

from evenhand.errors import EvenhandError
from evenhand.interfaces import Question
from evenhand.models import load, template_guard, template_trial
from evenhand.models.tiny import CHAT_TEMPLATE, tiny_model

MEMORY = 2**20
"""KiB that this process may grow by while a folder is refused, weights of the demo included."""


@pytest.fixture(scope="module")
def plain(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tiny_model().save(tmp_path_factory.mktemp("models") / "plain")


@pytest.fixture
def place(tmp_path: Path, plain: Path, monkeypatch: pytest.MonkeyPatch) -> Place:
    import huggingface_hub.constants

    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_OFFLINE", True)
    shutil.copytree(plain, tmp_path / "folder")
    shutil.copytree(plain, tmp_path / "outside" / "model")
    return Place(tmp_path / "folder", tmp_path / "marker", tmp_path / "outside")


@pytest.mark.parametrize("animal", FOLDERS, ids=lambda animal: animal.name)
def test_a_hostile_folder_gets_nothing_that_it_wants(animal: Animal, place: Place) -> None:
    animal.build(place)
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    with watched() as seen:
        if animal.words:
            with pytest.raises(EvenhandError, match=f"(?s){animal.words}") as refused:
                load(place.folder).choose([Question("q", "Who?", ("a", "b"))])
            assert str(refused.value).isprintable() and len(str(refused.value)) < 3000
        else:
            assert load(place.folder).abilities
    assert not place.marker.exists(), animal.wants
    away = [one for one in left(seen, place.folder) if not (one[0] == "subprocess.Popen" and "template" in animal.name)]
    assert away == [], animal.wants
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < MEMORY, animal.wants


def test_the_watch_sees_what_leaves_a_folder(tmp_path: Path) -> None:
    inside, outside = tmp_path / "folder" / "a", tmp_path / "outside"
    inside.parent.mkdir()
    for file in (inside, outside):
        file.write_text("x")
    with watched() as seen:
        inside.read_text()
        outside.read_text()
    assert left(seen, inside.parent) == [("open", str(outside))]
    with watched() as seen:
        pass
    outside.read_text()
    assert seen == [], "only within the block"


def test_a_pickle_and_a_module_of_the_zoo_would_make_their_marker(tmp_path: Path) -> None:
    """Else no marker would show nothing."""
    import pickle
    import zipfile

    from tests.zoo.animals import code, pickled

    for make in (lambda p: pickled(p, "w.bin"), lambda p: code(p, "evil.py")):
        place = Place(tmp_path, tmp_path / "marker", tmp_path)
        make(place)
        if (tmp_path / "w.bin").exists():
            pickle.loads(zipfile.ZipFile(tmp_path / "w.bin").read("archive/data.pkl"))
            (tmp_path / "w.bin").unlink()
        else:
            exec((tmp_path / "evil.py").read_text())
        assert place.marker.exists()
        place.marker.unlink()


@pytest.mark.parametrize(
    ("text", "tame"),
    [
        (CHAT_TEMPLATE, True),
        (
            "{% for m in messages %}{% if loop.index0 % 2 %}{{ m.role }}{% endif %}{{ m.content | trim }}{% endfor %}",
            True,
        ),
        ("{% set n = namespace(a='') %}{% for m in messages %}{% set n.a = m.content %}{% endfor %}{{ n.a }}", True),
        (
            "{% for a in messages %}{% for b in messages %}{% for c in messages %}{% endfor %}{% endfor %}{% endfor %}",
            False,
        ),
        ("{% for a in range(9) %}{% endfor %}", False),
        ("{{ 'x' * 9 }}", False),
        ("{{ 9 ** 9 }}", False),
        ("{{ '%9d' % 1 }}", False),
        ("{{ 'a' | center(9) }}", False),
        ("{{ lipsum(9) }}", False),
        ("{{ '{:>9}'.format(1) }}", False),
        ("{% macro a() %}{{ a() }}{% endmacro %}{{ a() }}", False),
        ("{% set n = namespace(s='x') %}{% for m in messages %}{% set n.s = n.s ~ n.s %}{% endfor %}", False),
        ("{% for m in messages %}{% set a = b + a %}{% set b = a + a %}{% endfor %}", False),
        ("{% for m in messages recursive %}{{ loop(messages) }}{% endfor %}", False),
        ("{% broken", False),
        ("{% set a = messages[0].content %}{% set b = a ~ '.' %}{{ b | trim('x') }}", True),
        ("{% set n = namespace(i=0) %}{% for m in messages %}{% set n.i = n.i + 1 %}{% endfor %}", True),
        ("{% set m = messages[1:] %}{% for a in m %}{% set b = '<' + a.role + '>' %}{{ b }}{% endfor %}", True),
        ("{{ messages | selectattr('role', 'equalto', 'user') | map(attribute='content') | join(', ') }}", True),
        ("{{ messages | tojson }}{{ x | default('y', true) }}", True),
        ("{% set a = messages[0].role %}{% set b = a ~ a %}{% set c = b ~ b %}{% set d = c ~ c %}", False),
        ("{% set b = x ~ x %}{% for t in [b] %}{% set c = t + t %}{{ c }}{% endfor %}", False),
        ("{% set b = [x, x] %}{% set c = [b, b] %}{{ c }}", False),
        ("{% set b = namespace(a=x, b=x) %}{% set c = namespace(a=b, b=b) %}{{ c }}", False),
        (
            "{% set b = x ~ x %}{% set n = [b] %}{% for t in n %}{% for u in [t ~ t] %}{{ u }}{% endfor %}{% endfor %}",
            False,
        ),
        ("{% set n = namespace(s='x') %}{% for m in [n, n] %}{% set m.s = m.s ~ n.s %}{% endfor %}", False),
        ("{% set b %}{{ x }}{{ x }}{% endset %}{% set c %}{{ b }}{{ b }}{% endset %}", False),
        ("{% with b = x ~ x %}{% with c = b ~ b %}{{ c }}{% endwith %}{% endwith %}", False),
        ("{% block strip %}{{ self.strip() }}{{ self.strip() }}{% endblock %}", False),
        ("{% filter tojson %}{% filter tojson %}x{% endfilter %}{% endfilter %}", False),
        ("{{ ['a'] | map('center', 9) | list }}", False),
        ("{{ ['a'] | map(*['center', 9]) | list }}", False),
        ("{{ messages | tojson(indent=9) }}", False),
        ("{{ messages | tojson | tojson | tojson }}", False),
        ("{{ x | join(', ') | join(', ') | join(', ') }}", False),
        ("{{ x | join(y) }}", False),
        ("{{ x | join('" + "-" * 11 + "') }}", False),
        ("{{ ((x.split('') ~ '').split('') ~ '').split('') ~ '' }}", False),
        ("{% set b = " + " ~ ".join(["x"] * 17) + " %}{{ b }}", False),
        ("{% set b = a %}" * 501, False),
    ],
)
def test_only_templates_that_walk_over_turns_need_no_trial(
    text: str, tame: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    tried: list[str] = []
    monkeypatch.setattr(template_guard, "_tried", lambda text: tried.append(text) or "")
    template_guard._too_much.__wrapped__(text)
    assert bool(tried) is not tame


def test_a_template_is_tried_once_for_all_who_have_it(place: Place, monkeypatch: pytest.MonkeyPatch) -> None:
    text = "{% for n in range(2) %}{% endfor %}" + CHAT_TEMPLATE
    template(text)(place)
    started: list[object] = []
    run = template_guard.subprocess.run
    monkeypatch.setattr(template_guard.subprocess, "run", lambda *a, **k: started.append(a) or run(*a, **k))
    template_guard._too_much.cache_clear()
    for _ in range(3):
        assert load(place.folder).choose([Question("q", "Who?", ("a", "b"))])[0].status == "answered"
    assert len(started) == 1


MACRO = "{% macro say(m) %}{{ m.content }}{% endmacro %}{% for m in messages %}{{ say(m) }}{% endfor %}"
LONG = "{{ messages | tojson(indent=300000) }}"


def test_a_trial_finds_jinja_where_this_process_does(monkeypatch: pytest.MonkeyPatch) -> None:
    program = Path(jinja2.__file__).parents[1]
    run = subprocess.run

    def without_packages(command: list[str], **options: Any) -> Any:
        return run([command[0], "-S", *command[1:]], **options)

    monkeypatch.setattr(template_guard.subprocess, "run", without_packages)
    assert str(program) in sys.path
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert template_guard._tried(MACRO) == ""
        assert "too long a text" in template_guard._tried(LONG)


def test_a_trial_has_limits_within_those_of_this_process(monkeypatch: pytest.MonkeyPatch) -> None:
    run = subprocess.run
    lower = {"preexec_fn": lambda: resource.setrlimit(resource.RLIMIT_AS, (2**29, 2**29))}
    monkeypatch.setattr(template_guard.subprocess, "run", lambda *a, **k: run(*a, **k, **lower))
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert template_guard._tried(MACRO) == ""
        assert "memory" in template_guard._tried("{{ 'x' * 700000000 }}")


def test_a_system_without_a_limit_still_tries(monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[int] = []

    def refusing(kind: int, bounds: tuple[int, int]) -> None:
        asked.append(kind)
        raise OSError("not here")

    monkeypatch.setattr(resource, "setrlimit", refusing)
    template_trial.limited(2, 2**30)
    assert asked == [resource.RLIMIT_CPU, resource.RLIMIT_AS]


@pytest.mark.parametrize(
    ("status", "words", "warned"),
    [(0, "", 0), (1, "", 1), (127, "", 1), (3, "too long", 0), (-9, "seconds", 0), (OSError("no fork"), "", 1)],
)
def test_only_what_a_trial_finds_refuses_a_template(
    status: int | OSError, words: str, warned: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    def ended(*_: Any, **__: Any) -> Any:
        if isinstance(status, OSError):
            raise status
        return subprocess.CompletedProcess([], status)

    monkeypatch.setattr(template_guard.subprocess, "run", ended)
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        said = template_guard._tried(MACRO)
    assert words in said and bool(said) is bool(words)
    assert len(caught) == warned and all("could not be tried" in str(w.message) for w in caught)


@pytest.mark.parametrize(
    "sizes",
    [
        {"num_labels": 1000},
        {"num_buckets": [64, 128]},
        {"num_buckets": None},
        {},
        {"max_position_embeddings": 10_000_000},
        {"num_experts": 0},
        {"rope_theta": 1e12},
    ],
)
def test_sizes_that_models_have_are_not_refused(sizes: dict[str, float], tmp_path: Path, plain: Path) -> None:
    from tests.zoo.animals import edit

    from evenhand.models.sizes import refuse_impossible

    folder = Path(shutil.copytree(plain, tmp_path / "m"))
    edit(folder / "config.json", **sizes)
    refuse_impossible(folder)


@pytest.mark.parametrize(
    ("sizes", "words"),
    [
        ({"text_config": {"vocab_size": 10**10}}, "vocab_size 10,000,000,000"),
        ({"max_position_embeddings": 10**9}, "max_position_embeddings"),
        ({"encoder_layers": 10_001}, "encoder_layers 10,001.*0 to 10,000"),
        ({"hidden_size": 2**20, "num_hidden_layers": 64}, "num_hidden_layers 64.*0 to 32"),
        ({"num_local_experts": 10**8}, "num_local_experts"),
        ({"intermediate_size": 1e11}, "intermediate_size"),
        ({"num_labels": 10**6 + 1}, "num_labels 1,000,001.*0 to 1,000,000"),
        ({"relative_attention_num_buckets": 10**10}, "num_buckets 10,000,000,000"),
        ({"num_buckets": [64, 10**10]}, "num_buckets 10,000,000,000"),
        ({"state_size": 10**10}, "state_size"),
        ({"num_kv_heads": [4, 10**10]}, "num_kv_heads"),
    ],
)
def test_sizes_of_every_kind_and_in_every_part_are_looked_at(
    sizes: dict[str, object], words: str, tmp_path: Path, plain: Path
) -> None:
    from tests.zoo.animals import edit

    from evenhand.models.sizes import refuse_impossible

    folder = Path(shutil.copytree(plain, tmp_path / "m"))
    edit(folder / "config.json", **sizes)
    with pytest.raises(EvenhandError, match=words):
        refuse_impossible(folder)
