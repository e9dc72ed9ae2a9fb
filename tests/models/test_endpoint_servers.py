"""What servers differ in: settings of their own, fields that they refuse, parts and thoughts, and a first look."""

from __future__ import annotations

import json
import time
import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from tests.models.test_endpoint import Answer, Server, error, first_token, ok, question, say

import evenhand
from evenhand.core.answer_cache import answer_cache
from evenhand.core.registry import build_method
from evenhand.errors import EndpointError, SettingsError
from evenhand.interfaces import Question, Sampling
from evenhand.models.endpoint import EndpointModel, look_first, open_endpoint
from evenhand.models.mitigated import Mitigated

pytest.importorskip("openai")
DRAWN = Sampling(temperature=1.0, max_new_tokens=9)


@pytest.fixture
def server(monkeypatch: pytest.MonkeyPatch) -> Iterator[Server]:
    for name in ("EVENHAND_API_KEY", "OPENAI_API_KEY", "HTTP_PROXY", "http_proxy", "ALL_PROXY", "all_proxy"):
        monkeypatch.delenv(name, raising=False)
    running = Server()
    yield running
    running.stop()


def refuse(field: str, message: str, *, otherwise: str = "fine") -> Any:
    """A model that refuses every request with a field."""

    def script(server: Server) -> Any:
        return lambda p, n: error(400, message) if field in server.bodies[-1] else ok(otherwise)

    return script


# ---------------------------------------------------------------------------------------------- settings of a server


@pytest.mark.parametrize(
    ("owner", "sent"),
    [
        ("vllm", {"top_k": -1, "min_p": 0.0, "repetition_penalty": 1.0}),
        ("sglang", {"top_k": -1, "min_p": 0.0, "repetition_penalty": 1.0}),
        ("llamacpp", {"top_k": 0, "min_p": 0.0, "repeat_penalty": 1.0, "typical_p": 1.0}),
        ("openai", {}),
        ("", {}),
    ],
)
def test_known_servers_are_kept_from_settings_of_their_own(server: Server, owner: str, sent: dict[str, Any]) -> None:
    server.owner = owner
    server.model(concurrency=1).generate(say("a"), DRAWN)
    server.model(concurrency=1).generate(say("a"))
    standard = {"model", "messages", "temperature", "top_p", "max_tokens", "seed"}
    for body in server.bodies:
        more = {k: v for k, v in body.items() if k not in standard}
        assert {k: more[k] for k in sent} == sent and bool(more) == bool(sent)


@pytest.mark.parametrize("owner", ["me", "llama-box"])
def test_llama_cpp_is_told_by_what_it_lists(server: Server, owner: str) -> None:
    server.owner = owner
    server.model().generate(say("a"), DRAWN)
    assert "min_p" not in server.bodies[-1], "any other server refuses what it does not know"
    server.card = {"meta": {"vocab_type": 2, "n_vocab": 32000, "n_ctx_train": 4096, "n_embd": 64, "n_params": 1}}
    server.model().generate(say("a"), DRAWN)
    assert server.bodies[-1]["top_k"] == 0 and server.bodies[-1]["min_p"] == 0.0
    assert server.model().preflight().server == "llamacpp"
    server.owner = "vllm"
    assert server.model().preflight().server == "vllm", "a name that is known stands"


def test_a_server_may_be_named(server: Server) -> None:
    server.owner = "vllm"
    server.model(server="other").generate(say("a"), DRAWN)
    assert "top_k" not in server.bodies[0] and "/v1/models" not in server.paths
    server.model(server="transformers").generate(say("a"), DRAWN)
    config = json.loads(server.bodies[1]["generation_config"])
    assert config == {"do_sample": True, "top_k": 0, "repetition_penalty": 1.0} and "top_k" not in server.bodies[1]
    with pytest.raises(SettingsError, match=r"server 'vlm' is not known.*vllm"):
        server.model(server="vlm")


def test_stored_replies_are_found_without_the_server(server: Server, tmp_path: Path) -> None:
    server.owner = "vllm"
    with answer_cache(tmp_path / "c.sqlite"):
        first = server.model().generate(say("a"), DRAWN)
        server.stop()
        assert server.model(retries=0).generate(say("a"), DRAWN) == first


def test_neutral_replies_are_not_taken_for_earlier_ones(server: Server, tmp_path: Path) -> None:
    with answer_cache(tmp_path / "c.sqlite"):
        server.model().generate(say("a"), DRAWN)  # a server that says nothing of itself
        server.owner = "llamacpp"
        server.model().generate(say("a"), DRAWN)
        server.model().generate(say("a"), DRAWN)
    assert server.asked == {"a": 2}


def test_settings_are_passed_through(server: Server) -> None:
    extra = {"top_k": 7, "chat_template_kwargs": {"enable_thinking": False}, "reasoning_effort": "low"}
    server.owner = "vllm"
    model = server.model(extra=extra)
    model.generate(say("a"), DRAWN)
    model.choose([question(answer_by="letters")])
    assert all({k: body[k] for k in extra} == extra for body in server.bodies)
    assert server.bodies[0]["min_p"] == 0.0, "what is not given stays neutral"
    assert model.facts()["extra"] == extra
    spec = f"endpoint:{server.url}#my-model(extra={{'top_k': 7}})"
    assert evenhand.load(spec).load_options["extra"] == {"top_k": 7}


def test_settings_that_are_passed_through_tell_models_apart(server: Server, tmp_path: Path) -> None:
    models = [server.model(), server.model(extra={"top_k": 7}), server.model(extra={"top_k": 8})]
    models += [server.model(thinking_tokens=9), server.model(server="vllm")]
    assert len({m.fingerprint for m in models}) == 5
    assert server.model(extra={}, thinking_tokens=0).fingerprint == models[0].fingerprint
    again = evenhand.load(models[1].save(tmp_path / "m"), trust_folder=True)
    assert isinstance(again, EndpointModel) and again.extra == {"top_k": 7}
    assert again.fingerprint == models[1].fingerprint


@pytest.mark.parametrize(
    ("extra", "said"),
    [
        ({"temperature": 0.5}, "give it as sampling"),
        ({"model": "x"}, "'model'"),
        ({"logprobs": False}, "'logprobs'"),
        ({"top_k": {1, 2}}, "JSON"),
        ({"top_k": float("nan")}, "JSON"),
        ("top_k", "map request fields"),
        ({1: 2}, "map request fields"),
    ],
)
def test_extra_that_cannot_be_sent(server: Server, extra: Any, said: str) -> None:
    with pytest.raises(SettingsError, match=said):
        server.model(extra=extra)


# -------------------------------------------------------------------------------------------- fields that are refused

NO_LIMIT = "Unsupported parameter: 'max_tokens' is not supported with this model. Use 'max_completion_tokens' instead."
NO_TEMPERATURE = (
    "Unsupported value: 'temperature' does not support 0 with this model. Only the default (1) is supported."
)


def test_a_limit_goes_by_its_newer_name_where_the_old_one_is_refused(server: Server) -> None:
    server.script = refuse("max_tokens", NO_LIMIT)(server)
    model = server.model(concurrency=1)
    assert [r.text for r in model.generate(say("a", "b"), Sampling(max_new_tokens=33))] == ["fine", "fine"]
    assert ["max_tokens" in b for b in server.bodies] == [True, False, False], "it is asked for once"
    assert server.bodies[-1]["max_completion_tokens"] == 33


def test_many_threads_that_meet_the_refusal_are_all_answered(server: Server) -> None:
    server.script = refuse("max_tokens", NO_LIMIT)(server)
    assert [r.text for r in server.model(concurrency=8).generate(say(*"01234567"))] == ["fine"] * 8


def test_a_model_that_refuses_temperature_0_says_so_once(server: Server) -> None:
    server.script = refuse("temperature", NO_TEMPERATURE)(server)
    with pytest.raises(EndpointError, match=r"extra=\{'temperature': None"):
        server.model(concurrency=1).generate(say(*"0123456789"))
    assert len(server.bodies) < 10, "the others would be refused as well"
    model = server.model(extra={"temperature": None, "top_p": None})
    assert model.generate(say("a"))[0].text == "fine"
    assert not {"temperature", "top_p"} & set(server.bodies[-1])


def test_another_field_that_is_refused_is_named(server: Server) -> None:
    server.script = refuse("stop", "Unsupported parameter: 'stop' is not supported with this model.")(server)
    with pytest.raises(EndpointError, match=r"extra=\{'stop': None\}"):
        server.model().generate(say("a"), Sampling(stop=("x",)))
    assert server.model(extra={"stop": None}).generate(say("a b x c"), Sampling(stop=("n",)))[0].text == "fi"


WORDINGS = [
    "Unrecognized request argument supplied: {}",  # OpenAI and Azure
    "Unrecognized request arguments supplied: {}, other",
    "Unknown parameter: '{}'.",
    "Unsupported parameter: '{}' is not supported with this model.",
    "[{{'type': 'extra_forbidden', 'loc': ('body', '{}'), 'msg': 'Extra inputs are not permitted', 'input': 'seed'}}]",
    "1 validation error for ChatCompletionRequest\nbody -> {}\n  extra fields not permitted (type=value_error.extra)",
    "{}: Extra inputs are not permitted",  # Anthropic
    "Failed to deserialize the JSON body into the target type: unknown field `{}`, expected one of `model`, `stop`",
    "litellm.UnsupportedParamsError: openai does not support parameters: ['{}'], for model=m. To drop these, set x",
    "property '{}' is unsupported",  # Groq
    "Unsupported param: {}",  # llama.cpp
]


@pytest.mark.parametrize("wording", WORDINGS)
@pytest.mark.parametrize("field", ["top_k", "seed", "stop", "repetition_penalty"])
def test_a_refused_field_is_named_whatever_the_wording(server: Server, wording: str, field: str) -> None:
    server.script = lambda p, n: error(400, wording.format(field)) if field in server.bodies[-1] else ok("fine")
    extra: dict[str, Any] = {} if field in ("seed", "stop") else {field: 2}
    drawn = Sampling(temperature=1.0, max_new_tokens=9, stop=("x",))
    with pytest.raises(EndpointError, match=rf"extra=\{{'{field}': None\}}") as caught:
        server.model(extra=extra, concurrency=1).generate(say("a"), drawn)
    assert len(server.bodies) == 1 and ".." not in str(caught.value)
    assert server.model(extra={**extra, field: None}).generate(say("a"), drawn)[0].text == "fine"


@pytest.mark.parametrize("wording", WORDINGS)
def test_a_refusal_with_the_status_422_as_the_detail_of_a_reply(server: Server, wording: str) -> None:
    said = json.dumps({"detail": wording.format("top_k")}).encode()
    server.script = lambda p, n: (422, {}, said) if "top_k" in server.bodies[-1] else ok("fine")
    with pytest.raises(EndpointError, match=r"extra=\{'top_k': None\}"):
        server.model(extra={"top_k": 2}).generate(say("a"))


def test_a_neutral_field_that_is_refused_ends_the_run_with_the_reason(server: Server) -> None:
    """Left out silently, replies would be drawn as the server likes."""
    server.owner, server.script = "vllm", refuse("min_p", "min_p: Extra inputs are not permitted")(server)
    with pytest.raises(EndpointError, match=r"field overrides the server's own default.*server='other'.*'min_p': None"):
        server.model().generate(say("a"), DRAWN)
    assert server.model(extra={"min_p": None}).generate(say("a"), DRAWN)[0].text == "fine"
    assert server.bodies[-1]["top_k"] == -1
    assert server.model(server="other").generate(say("a"), DRAWN)[0].text == "fine"


@pytest.mark.parametrize(
    "said",
    [
        "unknown field `tools`, expected one of `temperature`, `stop`, `seed`",
        "This model's maximum context length is 9 tokens; lower 'max_tokens'.",
        "Unsupported value: 'messages' does not support images",
    ],
)
def test_what_refuses_no_field_concerns_its_item_only(server: Server, said: str) -> None:
    server.script = lambda p, n: error(400, said) if p == "b" else ok(p)
    replies = server.model().generate(say("a", "b"), Sampling(temperature=1.0, stop=("x",)))
    assert [r.text for r in replies] == ["a", None]


def test_a_model_that_may_not_give_log_probabilities_says_what_to_do(server: Server) -> None:
    server.script = lambda p, n: error(403, "You are not allowed to request logprobs from this model.")
    with pytest.raises(EndpointError, match=r"from this model\. use answer_by='generation'"):
        server.model(answer_by="letters").choose([question()])


def test_a_refusal_that_names_no_field_that_was_sent_concerns_its_item_only(server: Server) -> None:
    server.script = lambda p, n: error(400, "Unsupported value: 'tools'") if p == "b" else ok(p)
    assert [r.text for r in server.model().generate(say("a", "b", "c"))] == ["a", None, "c"]


# ------------------------------------------------------------------------------------------------ parts and thoughts


def message(content: Any, **more: Any) -> Answer:
    return ok("", message={"role": "assistant", "content": content, **more})


@pytest.mark.parametrize(
    ("content", "text"),
    [
        ([{"type": "text", "text": "one "}, {"type": "text", "text": "two"}], "one two"),
        ([{"type": "output_text", "text": "one"}, {"type": "image_url", "image_url": {"url": "x"}}], "one"),
        (["one", " two"], "one two"),
        (
            [
                {"type": "thinking", "thinking": [{"type": "text", "text": "hm"}]},
                {"type": "text", "text": "B"},
            ],
            "<think>\nhm\n</think>\n\nB",
        ),
        ([{"type": "refusal", "refusal": "No."}], "No."),
    ],
)
def test_content_as_parts(server: Server, content: Any, text: str) -> None:
    server.script = lambda p, n: message(content)
    assert server.model().generate(say("a"))[0].text == text


@pytest.mark.parametrize("field", ["reasoning_content", "reasoning", "thinking"])
def test_a_thought_in_a_field_of_its_own_is_a_thought(server: Server, field: str) -> None:
    """It names options that it then rejects, so it must not be read as the answer."""
    server.script = lambda p, n: message(" (B)\n", **{field: "\nPerhaps (A)? No."})
    reply = server.model().generate(say("a"))[0]
    assert reply.text == "<think>\nPerhaps (A)? No.\n</think>\n\n(B)" and reply.finished and not reply.note
    assert server.model().choose([question()])[0].decision == 1


@pytest.mark.parametrize("content", [None, "", "absent"])
def test_a_thought_without_an_answer_is_undecided(server: Server, content: str | None) -> None:
    said = {"role": "assistant", "reasoning_content": "It is (A), or"}
    said |= {} if content == "absent" else {"content": content}  # type: ignore[dict-item]
    server.script = lambda p, n: ok("", message=said, finish_reason="length")
    reply = server.model(retries=0).generate(say("a"))[0]
    assert reply.text == "<think>\nIt is (A), or" and not reply.finished and "thinking_tokens" in reply.note
    choice = server.model(retries=0).choose([question()])[0]
    assert (choice.decision, choice.status) == (None, "unparsed") and "cut at 3 tokens" in choice.note


def cut_before_its_first_word(content: str | None) -> Answer:
    said = {"role": "assistant"} | ({} if content == "absent" else {"content": content})  # type: ignore[dict-item]
    return ok("", message=said, finish_reason="length")


@pytest.mark.parametrize("content", [None, "", "absent"])
def test_a_reply_that_was_cut_before_its_first_word_is_empty_and_undecided(server: Server, content: str | None) -> None:
    """Servers that hide thoughts send this where the thought took all tokens; asking again would not help."""
    server.script = lambda p, n: cut_before_its_first_word(content)
    reply = server.model(retries=2).generate(say("a"))[0]
    assert (reply.text, reply.finished, reply.usage.new_tokens) == ("", False, 3) and server.asked["a"] == 1
    assert "cut at 3 tokens before its first word" in reply.note and "room with thinking_tokens" in reply.note
    choice = server.model(retries=2).choose([question()])[0]
    assert (choice.decision, choice.status, choice.cut) == (None, "unparsed", True) and choice.note == reply.note
    assert len(server.bodies) == 2


def test_a_first_token_that_is_hidden_has_no_log_probabilities(server: Server) -> None:
    server.script = lambda p, n: cut_before_its_first_word(None)
    choice = server.model(answer_by="letters", retries=2).choose([question()])[0]
    assert choice.status == "unparsed" and "no log-probabilities" in choice.note and len(server.bodies) == 1


def test_a_hidden_reply_does_not_say_whether_a_letter_is_a_word(server: Server) -> None:
    """The first token A may begin a sentence; the written reply that would tell is cut before its first word."""
    server.script = lambda p, n: cut_before_its_first_word(None) if n else ok("A", **first_token(A=0.9, B=0.02))
    asked = Question("q", "Who?", ("A farmer", "Nobody", "The baker"))
    choice = server.model(answer_by="letters").choose([asked])[0]
    assert (choice.decision, choice.status, choice.usage.calls) == (None, "unparsed", 2)
    assert "room with thinking_tokens" in choice.note


def test_what_a_second_request_for_the_letter_costs_is_counted(server: Server) -> None:
    """Two of three questions begin with a letter that may be a word; the reply that tells comes after a thought."""

    def script(prompt: str, before: int) -> Answer:
        if before == 0:
            return ok("A", **first_token(**({"A": 0.9, "B": 0.02} if "certain" not in prompt else {"B": 0.9})))
        time.sleep(0.05)
        return message("A", reasoning_content="It says A farmer.")

    server.script = script
    model = server.model(answer_by="letters", concurrency=1)
    asked = [Question("q", text, ("A farmer", "Nobody", "The baker")) for text in ("Who?", "Which?", "certain?")]
    choices = model.choose(asked)
    assert [c.decision for c in choices] == [0, 0, 1] and [c.usage.calls for c in choices] == [2, 2, 1]
    found = model.second_requests
    assert found[:3] == (2, 14, 6) and 0.1 <= found.seconds < 5
    model.choose(asked[2:])
    assert model.second_requests == found and found.since(found).line() == ""
    assert found.line().startswith("2 questions were asked a second time")
    assert "14 more prompt tokens, 6 new tokens (thoughts included), 0." in found.line()


def test_a_thought_gets_room_of_its_own(server: Server) -> None:
    server.model(thinking_tokens=1000).generate(say("a"), Sampling(max_new_tokens=9))
    assert server.bodies[0]["max_tokens"] == 1009
    for wrong in (-1, 1.5, True):
        with pytest.raises(SettingsError, match="thinking_tokens"):
            server.model(thinking_tokens=wrong)


def test_a_first_token_of_a_thought_is_no_letter(server: Server) -> None:
    listed = first_token(A=0.9, B=0.1)
    server.script = lambda p, n: ok("", message={"content": None, "reasoning_content": "A"}, **listed)
    choice = server.model(answer_by="letters").choose([question()])[0]
    assert (choice.decision, choice.status) == (None, "unparsed") and "enable_thinking" in choice.note


def test_stop_strings_are_cut_off_where_the_server_leaves_them(server: Server) -> None:
    server.script = lambda p, n: message("one two STOP three", reasoning_content="a STOP in a thought")
    reply = server.model().generate(say("a"), Sampling(stop=("three", "STOP")))[0]
    assert reply.text == "<think>\na STOP in a thought\n</think>\n\none two" and reply.finished


# -------------------------------------------------------------------------------------------------------- a first look


def drawn(p: str, n: int) -> Answer:
    return ok(f"{p} {n}", **first_token(A=0.9, B=0.05))


def test_a_server_that_can_do_all_is_reported(server: Server) -> None:
    server.script, server.owner = drawn, "vllm"
    found = server.model().preflight(letters=True, draws=True)
    assert (found.server, found.thinks, found.new_tokens) == ("vllm", False, 3) and found.seconds > 0
    assert "my-model on vllm answers (a short reply took 3 tokens" in found.line("my-model")
    assert [b["temperature"] for b in server.bodies] == [0, 0, 1, 1]


@pytest.mark.parametrize(
    ("script", "said"),
    [
        (lambda p, n: error(401, "no"), "EVENHAND_API_KEY"),
        (lambda p, n: error(503, "loading"), "cannot be used, so nothing was asked: the server answered 503: loading"),
        (lambda p, n: ok(f"{p} {n}"), "cannot be read by letters: the server gave no log-probabilities"),
        (
            lambda p, n: drawn(p, n) if n or "fruit" not in p else error(400, "top_logprobs must be at most 5"),
            "5. If .*generation",
        ),
        (lambda p, n: ok("the same", **first_token(A=0.9, B=0.05)), "6 equal replies of 'my-model' at temperature 1"),
    ],
)
def test_what_a_server_cannot_do_is_one_line(server: Server, script: Any, said: str) -> None:
    server.script = script
    with pytest.raises(EndpointError, match=said) as caught:
        server.model(retries=0).preflight(letters=True, draws=True)
    assert "\n" not in str(caught.value)


def test_an_unknown_name_and_no_server_at_all(server: Server) -> None:
    server.owner, server.script = "vllm", lambda p, n: error(404, "no such model")
    with pytest.raises(SettingsError, match=r"has no model 'my-modle'.*my-model"):
        open_endpoint(f"{server.url}#my-modle", retries=0).preflight()
    server.stop()
    with pytest.raises(EndpointError, match="no connection to"):
        server.model(retries=0).preflight()


def test_a_name_that_is_not_listed_but_answered_to_is_fine(server: Server) -> None:
    server.owner, server.script = "vllm", drawn
    found = open_endpoint(f"{server.url}#adapter", retries=0).preflight(letters=True, draws=True)
    assert found.new_tokens == 3 and len(server.bodies) == 4


def test_what_only_later_requests_need_is_warned_of_at_once(server: Server, tmp_path: Path) -> None:
    server.script = lambda p, n: ok("the same")
    model = server.model(retries=0)
    with answer_cache(tmp_path / "c.sqlite"):
        model.look_first(letters=True, draws=True)
        with pytest.warns(UserWarning) as warned:
            assert model.generate(say("a"))[0].text == "the same"
        assert {"equal replies" in str(w.message) or "log-probabilities" in str(w.message) for w in warned} == {True}
        assert len(warned) == 2 and len(server.bodies) == 1 + 1 + 6 + 1
        for _ in range(2):
            with pytest.raises(EndpointError, match="6 equal replies of 'my-model'"):
                model.generate(say("b"), DRAWN)
        assert len(server.bodies) == 9, "what failed is not looked at again within a comparison"
        again = server.model(retries=0)
        again.look_first(draws=True)
        server.script = drawn
        again.generate(say("b"), DRAWN)  # what failed is not kept for the next one
        assert len(server.bodies) == 9 + 2 + 1 and again.facts()["preflight"]["new_tokens"] == 3
        once_more = server.model(retries=0)
        once_more.look_first(draws=True)
        once_more.generate(say("c"), DRAWN)
        assert len(server.bodies) == 13, "what is kept is not asked again"


def test_only_what_is_needed_is_asked(server: Server) -> None:
    """A server without log-probabilities, or that never draws, will do for greedy replies."""
    server.script = lambda p, n: ok("the same")
    server.model().preflight()
    assert len(server.bodies) == 1


def test_a_first_look_comes_once_before_the_first_request_that_no_cache_answers(server: Server, tmp_path: Path) -> None:
    server.script = drawn
    with answer_cache(tmp_path / "c.sqlite"):
        server.model().generate(say("a"))
        model = server.model()
        model.look_first()
        model.generate(say("a"))
        assert len(server.bodies) == 1, "all answers are there"
        model.generate(say("b"), DRAWN)
        model.generate(say("c"), DRAWN)
    prompts = [b["messages"][-1]["content"][:9] for b in server.bodies]
    assert prompts == ["a", "Write one", "Write one", "Write one", "b", "c"]
    assert model.facts()["preflight"]["thinks"] is False


def test_a_first_look_at_a_server_that_hides_its_thoughts_says_so(server: Server) -> None:
    """It can be used: with room for the thought there are answers. Whether it draws, empty replies do not tell."""
    server.script = lambda p, n: cut_before_its_first_word("absent")
    found = server.model(retries=2).preflight(draws=True)
    assert found.hidden and "room with thinking_tokens" in found.line("my-model") and len(server.bodies) == 7
    model = server.model(retries=2)
    model.look_first()
    with pytest.warns(UserWarning, match="thinking_tokens"):
        assert model.generate(say("a"))[0].text == ""


def test_the_cost_of_thinking_is_shown(server: Server) -> None:
    server.script = lambda p, n: message("B", reasoning_content=f"hm {n}")
    model = server.model()
    look_first(Mitigated(model, build_method("none"), choose=model.choose))
    with pytest.warns(UserWarning, match="3 tokens, .* including a thought: every reply has that cost"):
        model.generate(say("a"))
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        model.generate(say("b"))
