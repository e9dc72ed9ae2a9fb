"""`name(key=value)`: what can be written, that it is read back the same, and the run file."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any, ClassVar, Literal

import pytest

from evenhand.core import registry
from evenhand.core.registry import BUILT_IN, Registry, build_benchmark, build_method
from evenhand.core.specs import Part, parse, split
from evenhand.errors import SettingsError, UnknownNameError
from evenhand.experiment import config
from evenhand.interfaces import Method, Model, Stack, TrainData, settings
from evenhand.methods.prompting.self_debias import SelfDebias


@settings
class Everything(Method):
    """One setting of every type that a spec can hold."""

    name: ClassVar[str] = "everything"
    presets: ClassVar[dict[str, dict[str, Any]]] = {"strong": {"factor": 2.5, "text": "as in the paper"}}

    text: str = "usual"
    factor: float = 1.0
    count: int = 3
    flag: bool = False
    choice: Literal["some", "all"] = "some"
    maybe: str | None = None
    words: tuple[str, ...] = ()
    names: frozenset[str] = frozenset()
    file: Path | None = None

    def apply(self, model: Model, data: TrainData | None = None) -> Model:
        return model


@settings
class Demanding(Method):
    """Has a setting without default."""

    name: ClassVar[str] = "demanding"
    how: str

    def apply(self, model: Model, data: TrainData | None = None) -> Model:
        return model


@pytest.fixture(autouse=True)
def known(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    monkeypatch.setattr(registry, "methods", Registry("methods", BUILT_IN["methods"]))
    registry.methods.register(Everything)
    registry.methods.register(Demanding)
    yield


# ----------------------------------------------------------------------------------------------- presets in a spec


@pytest.mark.parametrize(
    ("written", "spec"),
    [
        ("everything(preset=strong)", "everything(preset=strong)"),
        ("everything(factor=2.5,text='as in the paper')", "everything(preset=strong)"),
        ("everything(preset=strong,count=4)", "everything(preset=strong,count=4)"),
        ("everything(preset=strong,factor=1.0)", "everything(text='as in the paper')"),
        ("everything(factor=2.5)", "everything(factor=2.5)"),
    ],
)
def test_a_spec_names_a_preset_where_that_says_it_in_fewer_settings(written: str, spec: str) -> None:
    method = build_method(written)
    assert method.spec == spec
    assert build_method(spec) == method


# ----------------------------------------------------------------------------------------------------- reading


@pytest.mark.parametrize(
    ("text", "separator", "parts"),
    [
        ("a", ",", ["a"]),
        ("a,b(k=1),c+d", ",", ["a", "b(k=1)", "c+d"]),
        ("a + b( k = 1+2j )", "+", ["a", "b( k = 1+2j )"]),
        ("a(k=(1,2)),b(k=[1,{2,3}])", ",", ["a(k=(1,2))", "b(k=[1,{2,3}])"]),
        ("a(k='x,y'),b(k=\"it's, so\")", ",", ["a(k='x,y')", 'b(k="it\'s, so")']),
        (r"a(k='it\'s, (so'),b", ",", [r"a(k='it\'s, (so')", "b"]),
        (r"a(k='\\'),b", ",", [r"a(k='\\')", "b"]),
        ("a(k=')'),b", ",", ["a(k=')')", "b"]),
        (" , a ,, b , ", ",", ["a", "b"]),
        ("", ",", []),
    ],
)
def test_a_list_is_split_outside_brackets_and_quotes(text: str, separator: str, parts: list[str]) -> None:
    assert split(text, separator) == parts


@pytest.mark.parametrize("text", ["a(k=1", "a(k=1))", "a(k='x)", "a(k=\"x')", "a)b", "a(k=[1)", r"a(k='x\')"])
def test_a_bracket_or_quote_that_is_not_closed_is_named(text: str) -> None:
    with pytest.raises(SettingsError, match=re.escape(repr(text))):
        build_method(text)


@pytest.mark.parametrize(
    ("text", "given"),
    [
        ("m", {}),
        (" m ( ) ", {}),
        ("m(a=1,b=-2.5,c=1e-3)", {"a": 1, "b": -2.5, "c": 0.001}),
        ("m(a=word,b='two words',c=\"it's\")", {"a": "word", "b": "two words", "c": "it's"}),
        ("m(a=True,b=False,c=None)", {"a": True, "b": False, "c": None}),
        ("m(a=true,b=none)", {"a": "true", "b": "none"}),
        ("m(a=('x',),b=(),c=[1,(2,3)])", {"a": ("x",), "b": (), "c": [1, (2, 3)]}),
        ("m(a={'x': 1.5})", {"a": {"x": 1.5}}),
        ("m(a='a(b=1)+c,d')", {"a": "a(b=1)+c,d"}),
    ],
)
def test_values_are_literals_and_a_bare_word_is_text(text: str, given: dict[str, Any]) -> None:
    part = parse(text)
    assert part == Part("m", given)
    assert [type(v) for v in part.settings.values()] == [type(v) for v in given.values()]


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("m(1)", "settings are key=value"),
        ("m(a=1,2)", "cannot be read"),
        ("m(**{'a': 1})", "settings are key=value"),
        ("m(a=1)(b=2)", "settings are key=value"),
        ("m(a=1) and n(b=2)", "settings are key=value"),
        ("m(a=1).b", "settings are key=value"),
        ("m(a=1,a=2)", "a is given twice"),
        ("m(a==1)", "settings are key=value"),
        ("m(a=)", "cannot be read"),
        ("m(a-b=1)", "cannot be read"),
        ("m(a=two words)", "cannot be read"),
        ("m(a=in)", "cannot be read"),
        ("m(a=\0)", "cannot be read"),
        ("m(a=f(1))", r"'f(1)' is not a plain value; put text in quotes"),
        ("m(a=(Age, SES))", r"'(Age, SES)' is not a plain value; put text in quotes"),
        ("m(a=x.y)", r"'x.y' is not a plain value; put text in quotes"),
        ("m(a={[1]: 2})", r"'{[1]: 2}' is not a plain value"),
    ],
)
def test_what_cannot_be_read_is_refused_with_the_way_to_write_it(text: str, says: str) -> None:
    with pytest.raises(SettingsError, match=re.escape(says)):
        parse(text)


# ---------------------------------------------------------------------------------------------------- round trip

TEXTS = (
    "two words",
    "",
    " ",
    "it's",
    'say "so"',
    """it's "so",""",
    "a,b",
    "a+b",
    "(",
    ")",
    "a(b=1)+c",
    "back\\slash",
    "\\",
    "\\'",
    "line\nbreak",
    "None",
    "True",
    "class",
    "nan",
    "1",
    "größe",
    "ﬁn",
    "日本",
    "#",
    "word",
)


@pytest.mark.parametrize("text", TEXTS)
def test_a_spec_with_any_text_builds_the_same_object(text: str) -> None:
    for method in (Everything(text=text), Everything(text=text, maybe=text, words=(text, "other"))):
        assert build_method(method.spec) == method
        assert registry.split_specs(f"none,{method.spec},none") == ["none", method.spec, "none"]


@pytest.mark.parametrize(
    "given",
    [
        {},
        {"factor": -0.1, "count": -7, "flag": True},
        {"factor": 1e-05},
        {"factor": 1e22},
        {"factor": float("inf")},
        {"choice": "all", "maybe": None},
        {"words": ("one",)},
        {"words": ("a, b", "c+d", "(e", "it's")},
        {"names": frozenset({"b", "a, c"})},
        {"file": Path("/tmp/some folder/it's.json")},
        {"file": Path("word")},
    ],
)
def test_a_spec_with_any_setting_builds_the_same_object(given: dict[str, Any]) -> None:
    method = Everything(**given)
    assert build_method(method.spec) == method
    assert build_method({"everything": method.settings}) == method


@pytest.mark.parametrize(
    ("benchmark", "spec"),
    [
        ("bbq", "bbq"),
        ("bbq(axes=('Age',))", "bbq(axes=('Age',))"),
        ("bbq(axes=['SES', 'Age'],source=demo)", "bbq(source=demo,axes=('SES', 'Age'))"),
        ("bbq(source='/data/my bbq, (copy)')", "bbq(source='/data/my bbq, (copy)')"),
        ("bbq(convention='lm-eval-like')", "bbq(convention='lm-eval-like')"),
    ],
)
def test_a_benchmarks_spec_builds_it_again(benchmark: str, spec: str) -> None:
    built = build_benchmark(benchmark)
    assert built.spec == spec
    assert build_benchmark(built.spec) == built
    assert build_benchmark({"bbq": built.settings}) == built


def test_a_spec_names_only_what_is_not_the_default() -> None:
    assert Everything(text="usual", factor=1.0).spec == "everything"
    assert Everything(count=4, text="word").spec == "everything(text=word,count=4)"
    assert Demanding(how="so").spec == "demanding(how=so)"


def test_a_stack_is_read_innermost_first_and_written_back() -> None:
    stack = build_method("everything(text='a+b') + self_debias(variant=explanation)+none")
    assert isinstance(stack, Stack)
    assert [part.name for part in stack.parts] == ["everything", "self_debias", "none"]
    assert stack.spec == "everything(text='a+b')+self_debias(variant=explanation)+none"
    assert build_method(stack.spec) == stack


def test_one_method_is_no_stack() -> None:
    assert isinstance(build_method("self_debias+"), SelfDebias)


def test_objects_are_taken_as_they_are() -> None:
    method, benchmark = Everything(count=9), build_benchmark("bbq")
    assert build_method(method) is method
    assert build_benchmark(benchmark) is benchmark


# ------------------------------------------------------------------------------------------------- wrong settings


@pytest.mark.parametrize(
    ("build", "text", "says"),
    [
        (build_method, "everything(facter=2)", "everything: unknown setting 'facter'. Did you mean 'factor'"),
        (build_method, "everything(prest=strong)", "unknown setting 'prest'. Did you mean 'preset'"),
        (build_method, "everything(xyzzy=1)", "Known: choice, count, factor"),
        (build_method, "everything(cls=1)", "unknown setting 'cls'"),
        (build_method, "everything(preset=stong)", "unknown preset 'stong'. Did you mean 'strong'"),
        (build_method, "everything(preset=1)", "unknown preset '1'. Known: default, strong"),
        (build_method, "everything(preset=[1])", "unknown preset '[1]'"),
        (build_method, "everything(count=many)", "everything: count='many': Input should be a valid integer"),
        (build_method, "everything(count=2.5)", "count=2.5"),
        (build_method, "everything(words=1)", "words=1"),
        (build_method, "everything(choice=most)", "choice='most': Input should be 'some' or 'all'"),
        (build_method, "everything(count=a,factor=b)", "count='a': Input should be a valid integer"),
        (build_method, "everything(count=a,factor=b)", "factor='b': Input should be a valid number"),
        (build_method, "demanding", "demanding: how="),
        (build_method, "self_debias(temperature=-1)", "self_debias: temperature=-1: Input should be greater"),
        (build_benchmark, "bbq(conventions=helm)", "bbq: unknown setting 'conventions'. Did you mean 'convention'"),
        (build_benchmark, "bbq(convention=helmet)", "bbq: convention='helmet'"),
        (build_method, "", "an empty method name"),
        (build_method, {"none": None, "self_debias": None}, "write one name with its settings below it"),
        (build_method, {"self_debias": "explanation"}, "settings are a mapping"),
        (build_benchmark, {"bbq": ["Age"]}, "settings are a mapping"),
        (build_benchmark, {"bbq": {1: 2}}, "unknown setting '1'"),
    ],
)
def test_a_wrong_setting_is_named_with_its_value_and_the_near_ones(build: Any, text: Any, says: str) -> None:
    with pytest.raises(SettingsError, match=re.escape(says)):
        build(text)


def test_an_unknown_name_inside_a_stack_suggests_the_near_ones() -> None:
    with pytest.raises(UnknownNameError, match=r"unknown method 'self_debais'\. Did you mean 'self_debias'"):
        build_method("none+self_debais(seed=1)")


def test_a_preset_sets_its_values_and_leaves_the_others() -> None:
    assert build_method("everything(preset=strong)") == Everything(factor=2.5, text="as in the paper")
    assert build_method("everything(preset=default)") == Everything()


def test_a_given_value_overrides_the_presets() -> None:
    built = build_method("everything(factor=0.5,preset=strong,count=1)")
    assert built == Everything(factor=0.5, text="as in the paper", count=1)
    assert build_method(built.spec) == built


NAMED_PAPERS = {"pairwise.dpo"}
"""Presets of methods with several papers that are called after theirs, and have the defaults."""


def test_the_presets_of_every_built_in_can_be_built() -> None:
    tried = []
    for known_as in (registry.methods, registry.benchmarks):
        for name in BUILT_IN[known_as.kind]:
            thing = known_as.get(name)
            for preset, values in thing.presets.items():
                built = thing.build(preset=preset)
                assert built == thing(**values)
                of_paper = preset == "paper" or f"{name}.{preset}" in NAMED_PAPERS
                assert built != thing() or of_paper, "only a paper's settings may be the defaults"
                tried.append(f"{name}.{preset}")
    assert "self_debias.paper" in tried


# ------------------------------------------------------------------------------------------------------ run files


def written(folder: Path, content: str | bytes) -> Path:
    file = folder / "run.yaml"
    file.write_bytes(content if isinstance(content, bytes) else content.encode())
    return file


def test_a_run_file_says_everything(tmp_path: Path) -> None:
    read = config.read(
        written(
            tmp_path,
            """
            models:
              - demo
              - org/name: {dtype: float32}
            methods: [none, "self_debias(variant=explanation)", {self_debias: {seed: 3}}]
            benchmarks: bbq
            out: runs/größe
            limit: 40
            seed: 5
            replicates: 200
            cache: shared.sqlite
            plugins: [mine.py]
            load: {device: cpu}
            """,
        )
    )
    assert read.models == ["demo", {"org/name": {"dtype": "float32"}}]
    assert read.methods == ["none", "self_debias(variant=explanation)", {"self_debias": {"seed": 3}}]
    assert (read.benchmarks, read.out, read.cache) == ("bbq", "runs/größe", "shared.sqlite")
    assert (read.limit, read.seed, read.replicates) == (40, 5, 200)
    assert (read.plugins, read.load) == (["mine.py"], {"device": "cpu"})
    assert [m.spec for m in map(build_method, read.methods)] == [
        "none",
        "self_debias(variant=explanation)",
        "self_debias(seed=3)",
    ]


def test_a_run_file_needs_only_models_and_tells_what_was_set(tmp_path: Path) -> None:
    read = config.read(written(tmp_path, "models: demo\nseed: 0\n"))
    assert (read.methods, read.benchmarks, read.limit) == ("all", "all", None)
    assert read.model_dump(exclude_unset=True) == {"models": "demo", "seed": 0}


@pytest.mark.parametrize(
    ("content", "says"),
    [
        ("models: demo\nmethod: none\n", "unknown key 'method'. Did you mean 'methods'"),
        ("models: demo\nreplicate: 5\n", "unknown key 'replicate'. Did you mean 'replicates'"),
        ("models: demo\n1: 2\n", "unknown key 1. Known: alpha, answer_by, benchmarks"),
        ("models: demo\nlimit: many\n", "limit: Input should be a valid integer"),
        ("models: demo\nlimit: many\n", "not 'many'"),
        ("models: demo\nlimit: 2.5\n", "not 2.5"),
        ("models: demo\nplugins: mine.py\n", "plugins: Input should be a valid list, not 'mine.py'"),
        ("models: 3\n", "models: "),
        ("models: demo\nload: fast\n", "load: Input should be a valid dictionary"),
        ("methods: none\n", "models: Field required"),
        ("- demo\n- none\n", "a mapping was expected"),
        ("demo", "a mapping was expected"),
        ("", "a mapping was expected"),
        ("models: [demo\nmethods: none\n", "is not YAML"),
        ("models: demo\n\tmethods: none\n", "is not YAML"),
        (b"\xff\xfe\x00models", "is not YAML"),
        (b"models: gr\xf6\xdfe\n", "is not YAML"),
        ("models: !!python/object/apply:os.getcwd []\n", "is not YAML"),
    ],
)
def test_a_wrong_run_file_is_refused_with_file_and_reason(tmp_path: Path, content: str | bytes, says: str) -> None:
    file = written(tmp_path, content)
    with pytest.raises(SettingsError, match=re.escape(says)) as caught:
        config.read(file)
    assert str(file) in str(caught.value)
    assert "\n" not in str(caught.value)


def test_a_missing_run_file_is_named(tmp_path: Path) -> None:
    with pytest.raises(SettingsError, match=r"cannot read the run file .*absent\.yaml.*No such file"):
        config.read(tmp_path / "absent.yaml")


def test_a_folder_is_no_run_file(tmp_path: Path) -> None:
    with pytest.raises(SettingsError, match="cannot read the run file"):
        config.read(tmp_path)


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("m(a=/data/bbq)", "/data/bbq"),
        ("m(a=texts/mine.txt)", "texts/mine.txt"),
        ("m(a=texts.jsonl)", "texts.jsonl"),
        ("m( a = ~/runs/a+b )", "~/runs/a+b"),
        ("m(a=Qwen/Qwen2.5-7B)", "Qwen/Qwen2.5-7B"),
        ("m(a=demo-c)", "demo-c"),
        ("m(a=demo:biased:Age)", "demo:biased:Age"),
        ("m(a=endpoint:http://localhost:8000/v1#name)", "endpoint:http://localhost:8000/v1#name"),
        (r"m(a=C:\data\new.txt)", r"C:\data\new.txt"),
        ("m(a='x, b=c/d')", "x, b=c/d"),
        ("m(a=-1.5e-3)", -1.5e-3),
        ("m(a=[-1, 2])", [-1, 2]),
    ],
)
def test_paths_and_names_need_no_quotes(text: str, value: Any) -> None:
    assert parse(text).settings == {"a": value}
    assert parse(text.replace(")", ", z=1)")).settings == {"a": value, "z": 1}


@pytest.mark.parametrize("text", ["m(a=1/2)", "m(a=b/c", "m(a==b/c)", "m(a=b/c d)", "m(b/c)", "m(a=x.y)", "m(a=1-2)"])
def test_what_is_neither_a_path_nor_a_value_is_refused(text: str) -> None:
    with pytest.raises(SettingsError):
        parse(text)


def test_a_setting_that_takes_several_texts_takes_a_single_one() -> None:
    assert build_benchmark("bbq(axes=Age)").spec == build_benchmark("bbq(axes=('Age',))").spec == "bbq(axes=('Age',))"
    assert build_method("task_vector(axes=Age)").settings["axes"] == ["Age"]
    with pytest.raises(SettingsError, match="axes"):
        build_benchmark("bbq(axes=3)")
