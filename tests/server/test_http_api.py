"""The owner's HTTP surface, over a real socket, with the real model and the `openai` client."""

from __future__ import annotations

import contextlib
import hmac
import http.client
import json
import os
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import openai
import pytest

from inhouse_server.http_api.guard import _host_name, host_in_header
from inhouse_server.owner import OwnerAddress, find_owner
from inhouse_training import BaseModel


@pytest.fixture(scope="module")
def owner(shop: Path, base_model: BaseModel) -> Iterator[OwnerAddress]:
    process = subprocess.Popen(
        [sys.executable, "-m", "inhouse_server.cli", "serve", "--repo", str(shop), "--port", "0"]
    )
    deadline = time.monotonic() + 60
    found = None
    while found is None and time.monotonic() < deadline and process.poll() is None:
        found = find_owner(shop / ".inhouse")
        time.sleep(0.1)
    assert found, "the owner did not come up"
    yield found
    process.terminate()
    process.wait(30)


@pytest.fixture(scope="module")
def client(owner: OwnerAddress) -> openai.OpenAI:
    return openai.OpenAI(base_url=f"{owner.url}/v1", api_key=owner.token, max_retries=0)


def authorised(owner: OwnerAddress, **headers: str) -> dict[str, str]:
    return {"Authorization": f"Bearer {owner.token}", **headers}


def test_the_token_is_private(shop: Path, owner: OwnerAddress) -> None:
    assert (shop / ".inhouse" / "token").stat().st_mode & 0o777 == 0o600


@pytest.mark.parametrize(
    ("method", "path"),
    [
        ("GET", "/v1/models"),
        ("POST", "/v1/chat/completions"),
        ("POST", "/v1/completions"),
        ("POST", "/v1/embeddings"),
        ("GET", "/openapi.json"),
        ("POST", "/inhouse/search"),
        ("POST", "/inhouse/ask"),
        ("POST", "/inhouse/index"),
        ("GET", "/inhouse/status"),
        ("POST", "/inhouse/shutdown"),
        ("POST", "/inhouse/passage"),
        ("POST", "/inhouse/uses"),
        ("POST", "/inhouse/review"),
        ("GET", "/inhouse/adapters"),
        ("POST", "/inhouse/feedback"),
        ("GET", "/web/chat.js"),
        ("POST", "/mcp"),
        ("GET", "/mcp"),
        ("GET", "/lsp"),
        ("GET", "/no/such/route"),
    ],
)
@pytest.mark.parametrize("authorization", [None, "Bearer wrong", "Basic x", "Bearer"])
def test_every_route_wants_the_token(owner: OwnerAddress, method: str, path: str, authorization: str | None) -> None:
    headers = {"Authorization": authorization} if authorization else {}
    answer = httpx.request(method, f"{owner.url}{path}", headers=headers)
    assert answer.status_code == 401
    assert answer.json()["error"]["code"] == "invalid_api_key"


def test_health_needs_no_token_and_says_nothing_of_the_repository(owner: OwnerAddress, shop: Path) -> None:
    answer = httpx.get(f"{owner.url}/healthz")
    assert answer.json().keys() == {"status", "pid"}


@pytest.mark.parametrize(
    "headers",
    [{"Host": "evil.example"}, {"Origin": "https://evil.example"}, {"Origin": "null"}, {"Origin": "http://["}],
)
def test_other_hosts_and_origins_are_refused_even_with_the_token(owner: OwnerAddress, headers: dict[str, str]) -> None:
    answer = httpx.get(f"{owner.url}/v1/models", headers=authorised(owner, **headers))
    assert answer.status_code == 403


@pytest.mark.parametrize(
    "host",
    ["127.0.0.1:/healthz?", "[::1]/healthz?", "127.0.0.1/healthz", "127.0.0.1:80:80", "localhost:x", "", "@localhost"],
)
def test_a_host_header_is_a_name_and_a_port_and_nothing_else(owner: OwnerAddress, host: str) -> None:
    answer = httpx.get(f"{owner.url}/v1/models", headers={"Host": host})
    assert answer.status_code in (400, 401, 403)
    answer = httpx.get(f"{owner.url}/v1/models", headers=authorised(owner, Host=host))
    assert answer.status_code in (400, 403)


@pytest.mark.parametrize(
    ("listening", "header"),
    [("::", "[::]:8470"), ("2001:db8::1", "[2001:DB8::1]"), ("shop.example", "Shop.example:80")],
)
def test_hosts_are_named_as_requests_name_them(listening: str, header: str) -> None:
    assert _host_name(header) == host_in_header(listening)


def test_health_proves_that_it_knows_the_token(owner: OwnerAddress) -> None:
    nonces = "one", "two"
    proofs = [httpx.get(f"{owner.url}/healthz", params={"nonce": nonce}).json()["proof"] for nonce in nonces]
    assert proofs == [
        hmac.new(owner.token.encode(), f"alive:{nonce}".encode(), "sha256").hexdigest() for nonce in nonces
    ]


def test_a_page_of_the_owner_itself_is_let_in(owner: OwnerAddress) -> None:
    answer = httpx.get(f"{owner.url}/v1/models", headers=authorised(owner, Origin=owner.url))
    assert answer.status_code == 200


def test_models_list_the_current_one_the_base_and_the_encoder(client: openai.OpenAI) -> None:
    assert [model.id for model in client.models.list()] == ["inhouse", "SmolLM2-135M-Instruct", "all-MiniLM-L6-v2"]


def test_a_streamed_answer_cites_passages_and_says_what_produced_it(client: openai.OpenAI, shop: Path) -> None:
    stream = client.chat.completions.create(
        model="inhouse",
        messages=[{"role": "user", "content": "When do couriers come?"}],
        max_tokens=12,
        stream=True,
        stream_options={"include_usage": True},
    )
    text, extra, usage, reason = "", None, None, None
    for chunk in stream:
        usage = chunk.usage or usage
        extra = (chunk.model_extra or {}).get("inhouse", extra)
        for choice in chunk.choices:
            text += choice.delta.content or ""
            reason = choice.finish_reason or reason
    assert text
    assert reason in ("stop", "length")
    assert usage is not None and 0 < usage.completion_tokens <= 12
    assert extra is not None and extra["answer"] == text
    assert "shipping.py" in [citation["path"] for citation in extra["citations"]]
    assert extra["provenance"]["adapter"] is None
    head = subprocess.run(["git", "rev-parse", "HEAD"], cwd=shop, capture_output=True, text=True)
    assert extra["provenance"]["index_commit"] == head.stdout.strip()


def test_streamed_and_whole_answers_are_the_same_text(client: openai.OpenAI) -> None:
    def ask(stream: bool) -> str:
        answer = client.chat.completions.create(
            model="SmolLM2-135M-Instruct",
            messages=[{"role": "user", "content": "Name a colour."}],
            max_tokens=16,
            stream=stream,
        )
        if not stream:
            return str(answer.choices[0].message.content)
        return "".join(chunk.choices[0].delta.content or "" for chunk in answer)

    ask(True)  # the first reads the whole prompt, which may round otherwise than reading its end alone
    assert ask(True) == ask(False)


@pytest.mark.parametrize(
    ("body", "status"),
    [
        (b"{", 400),
        (b"[]", 400),
        (b'{"model": "inhouse", "messages": []}', 400),
        (b'{"model": "inhouse", "messages": [{"role": "wizard", "content": "x"}]}', 400),
        (b'{"model": "inhouse", "messages": [{"role": "user", "content": "x"}], "tools": [{}]}', 400),
        (b'{"model": "inhouse", "messages": [{"role": "user", "content": "x"}], "max_tokens": -1}', 400),
        (b'{"model": "inhouse", "messages": [{"role": "assistant", "content": "x"}]}', 400),
        (b'{"model": "inhouse", "messages": [{"role": "user", "content": " "}]}', 400),
        (b'{"model": "nobody", "messages": [{"role": "user", "content": "x"}]}', 404),
        (b"\xff\xfe", 400),
        (b"[" * 100_000, 400),
        (b"x" * (5 * 2**20), 413),
    ],
)
def test_malformed_requests_get_errors_in_the_clients_shape(owner: OwnerAddress, body: bytes, status: int) -> None:
    answer = httpx.post(f"{owner.url}/v1/chat/completions", content=body, headers=authorised(owner))
    assert answer.status_code == status
    assert answer.json()["error"]["message"]


def test_sampling_and_stop_texts_are_honoured(client: openai.OpenAI) -> None:
    def ask(**sampling: Any) -> str:
        answer = client.chat.completions.create(
            model="SmolLM2-135M-Instruct",
            messages=[{"role": "user", "content": "Count from one to twenty."}],
            max_tokens=12,
            extra_body={"inhouse": {"retrieve": False}},
            **sampling,
        )
        return str(answer.choices[0].message.content)

    greedy = ask()
    assert len(greedy) >= 8
    assert greedy == ask() == ask(temperature=0)
    assert ask(stop=greedy[4:8]) == greedy[: greedy.index(greedy[4:8])]
    assert ask(temperature=1.5, seed=1) == ask(temperature=1.5, seed=1)
    assert len({ask(temperature=1.5, seed=seed) for seed in (1, 2, 3)}) > 1


def test_an_answer_follows_the_response_format(client: openai.OpenAI) -> None:
    schema = {
        "type": "object", "properties": {"hour": {"type": "integer", "minimum": 0, "maximum": 24}},
        "required": ["hour"], "additionalProperties": False,
    }  # fmt: skip
    answer = client.chat.completions.create(
        model="inhouse",
        messages=[{"role": "user", "content": "When do couriers come?"}],
        max_tokens=24,
        response_format={"type": "json_schema", "json_schema": {"name": "hour", "schema": schema, "strict": True}},
    )
    assert 0 <= json.loads(answer.choices[0].message.content or "")["hour"] <= 24
    with pytest.raises(openai.BadRequestError, match="schema cannot be followed"):
        client.chat.completions.create(
            model="inhouse",
            messages=[{"role": "user", "content": "x"}],
            response_format={"type": "json_schema", "json_schema": {"name": "x", "schema": {"type": "nonsense"}}},
        )
    for without in ({"type": "json_schema"}, {"type": "json_schema", "json_schema": None}):
        with pytest.raises(openai.BadRequestError, match="must hold the schema") as refused:
            client.chat.completions.create(
                model="inhouse",
                messages=[{"role": "user", "content": "x"}],
                extra_body={"response_format": without},
            )
        assert refused.value.param == "response_format"


def test_null_asks_for_the_default(owner: OwnerAddress) -> None:
    def ask(**more: Any) -> dict[str, Any]:
        chat = {"messages": [{"role": "user", "content": "Hi"}], "inhouse": {"retrieve": False}}
        body = {"model": "SmolLM2-135M-Instruct", "max_tokens": 4, **chat, **more}
        answer = httpx.post(f"{owner.url}/v1/chat/completions", json=body, headers=authorised(owner), timeout=60)
        assert answer.status_code == 200, answer.text
        return dict(answer.json()["choices"][0])

    nulls = dict.fromkeys(("temperature", "top_p", "stream", "seed", "max_completion_tokens", "n", "stop"))
    assert ask(**nulls) == ask()
    assert ask(max_tokens=None, stop="\n")
    with_temperature = {"temperature": 1.5, "max_tokens": 12}
    assert ask(**with_temperature, top_p=None, seed=None) == ask(**with_temperature)
    assert ask(temperature=1e-40, top_p=1e-300, seed=2**63 - 1) == ask(seed=-(2**63))


def test_a_seed_has_64_bits(client: openai.OpenAI) -> None:
    for seed in (2**63, 2**64, 10**30, -(2**63) - 1):
        with pytest.raises(openai.BadRequestError) as refused:
            client.completions.create(model="inhouse", prompt="Hi", max_tokens=1, extra_body={"seed": seed})
        assert refused.value.param == "seed"


def test_a_completion_answers_its_prompt_as_the_chat_does(client: openai.OpenAI) -> None:
    prompt, model = "Name a colour.", "SmolLM2-135M-Instruct"
    whole = client.completions.create(model=model, prompt=prompt, max_tokens=8)
    assert whole.object == "text_completion" and whole.usage is not None and whole.usage.completion_tokens <= 8
    provenance = (whole.model_extra or {})["inhouse"]["provenance"]
    assert provenance["index_commit"] is None, "nothing was retrieved"
    chunks = list(client.completions.create(model=model, prompt=prompt, max_tokens=8, stream=True))
    assert "".join(chunk.choices[0].text for chunk in chunks) == whole.choices[0].text
    assert chunks[-1].choices[0].finish_reason == whole.choices[0].finish_reason
    chat = client.chat.completions.create(
        model=model,
        messages=[{"role": "user", "content": prompt}],
        max_tokens=8,
        extra_body={"inhouse": {"retrieve": False}},
    )
    assert chat.choices[0].message.content == whole.choices[0].text


def test_embeddings_are_those_of_the_index_s_encoder(client: openai.OpenAI) -> None:
    def vectors(*texts: str, **more: Any) -> list[list[float]]:
        answer = client.embeddings.create(model="all-MiniLM-L6-v2", input=list(texts), **more)
        assert answer.usage.prompt_tokens > 0
        return [each.embedding for each in answer.data]

    near, far, query = vectors("couriers come at noon", "a receipt of pennies", "when do couriers come")
    assert len(near) == 384 and sum(x * x for x in near) == pytest.approx(1, abs=1e-3)
    assert sum(a * b for a, b in zip(near, query, strict=True)) > sum(a * b for a, b in zip(far, query, strict=True))
    # The client asks for base64 unless told otherwise; both say the same.
    assert vectors("noon", encoding_format="float")[0] == pytest.approx(vectors("noon")[0], abs=1e-6)
    with pytest.raises(openai.BadRequestError, match="the encoder reads"):
        vectors("why " * 400)
    assert vectors("why " * 400, extra_body={"inhouse": {"truncate": True}})
    with pytest.raises(openai.BadRequestError, match="384 dimensions"):
        vectors("why", dimensions=10)
    with pytest.raises(openai.NotFoundError, match="encoder here is"):
        client.embeddings.create(model="text-embedding-3-small", input="why")


def test_tools_and_what_no_model_here_does_are_refused_by_name(client: openai.OpenAI) -> None:
    function = {"name": "look", "parameters": {"type": "object"}}
    asked: dict[str, Any] = {"model": "inhouse", "messages": [{"role": "user", "content": "Hi"}], "max_tokens": 1}
    for field, value in {
        "tools": [{"type": "function", "function": function}],
        "tool_choice": "auto",
        "functions": [function],
        "logprobs": True,
        "logit_bias": {"1": 1},
        "audio": {"voice": "alloy", "format": "wav"},
    }.items():
        with pytest.raises(openai.BadRequestError, match=f"leave '{field}' out") as refused:
            client.chat.completions.create(**asked, extra_body={field: value})
        assert (refused.value.param, refused.value.code) == (field, "unsupported_parameter")
    with pytest.raises(openai.BadRequestError, match="suffix"):
        client.completions.create(model="inhouse", prompt="def f(", suffix="return")
    for count in (0, 1):
        with pytest.raises(openai.BadRequestError, match="leave 'logprobs' out"):
            client.completions.create(model="inhouse", prompt="def f(", logprobs=count)
    harmless = {"tools": [], "tool_choice": "none", "user": "Ada", "metadata": {"a": "b"}, "logprobs": False}
    assert client.chat.completions.create(**asked, extra_body=harmless).choices
    with pytest.raises(openai.BadRequestError, match="retreive"):
        client.chat.completions.create(**asked, extra_body={"inhouse": {"retreive": False}})


def test_a_conversation_with_tools_in_it_is_refused_as_tools_are(owner: OwnerAddress) -> None:
    def ask(told: dict[str, Any]) -> httpx.Response:
        user = {"role": "user", "content": "Hi"}
        body = {"model": "inhouse", "messages": [user, told, user], "max_tokens": 1}
        return httpx.post(f"{owner.url}/v1/chat/completions", json=body, headers=authorised(owner), timeout=60)

    call = {"id": "call_1", "type": "function", "function": {"name": "look", "arguments": "{}"}}
    for told, field in (
        ({"role": "assistant", "content": None, "tool_calls": [call]}, "messages.1.tool_calls"),
        ({"role": "assistant", "content": "I look.", "tool_calls": [call]}, "messages.1.tool_calls"),
        ({"role": "assistant", "content": "I look.", "function_call": call["function"]}, "messages.1.function_call"),
        ({"role": "user", "content": "Found.", "tool_call_id": "call_1"}, "messages.1.tool_call_id"),
        ({"role": "tool", "content": "Found.", "tool_call_id": "call_1"}, "messages.1"),
        ({"role": "function", "content": "Found.", "name": "look"}, "messages.1"),
    ):
        refused = ask(told)
        error = refused.json()["error"]
        assert (refused.status_code, error["param"], error["code"]) == (400, field, "unsupported_parameter")
        assert error["message"] == f"No model here calls tools; leave '{field}' out."
    assert ask({"role": "assistant", "content": "Hi", "tool_calls": [], "function_call": None}).status_code == 200
    assert ask({"role": "king", "content": "Hi"}).json()["error"]["param"] == "messages.1.role"


def test_a_review_reads_with_the_owner_s_model(owner: OwnerAddress, shop: Path) -> None:
    (shop / "parcels.py").write_text("def weigh(parcel):\n    return parcel.grams\n")
    try:
        command = [sys.executable, "-m", "inhouse_server.cli", "review", "--read", "--json", "--repo", str(shop)]
        done = subprocess.run(
            command, capture_output=True, text=True, env={**os.environ, "INHOUSE_REVIEW_TOKENS": "64"}, check=False
        )
    finally:
        (shop / "parcels.py").unlink()
    assert done.returncode == 0, done.stderr
    told = json.loads(done.stdout)
    assert told["provenance"] == {"base_model": "SmolLM2-135M-Instruct", "adapter": None}
    assert (told["coverage"]["seen"], told["coverage"]["unseen"]) == (1, [])


def test_a_system_message_reaches_the_model(client: openai.OpenAI) -> None:
    def prompt_tokens(*messages: dict[str, str]) -> int:
        answer = client.chat.completions.create(
            model="SmolLM2-135M-Instruct", messages=[*messages, {"role": "user", "content": "Hi"}], max_tokens=1
        )
        return int(answer.usage.prompt_tokens)

    instruction = "Answer in French. " * 20
    alone = prompt_tokens()
    assert prompt_tokens({"role": "system", "content": instruction}) > alone + 60
    assert prompt_tokens({"role": "developer", "content": instruction}) > alone + 60


def test_a_question_that_follows_others_is_answered_with_its_passages(owner: OwnerAddress) -> None:
    def finished(**more: Any) -> dict[str, Any]:
        body = {"question": "When do couriers come?", "adapter": "base", "max_tokens": 2, **more}
        answer = httpx.post(f"{owner.url}/inhouse/ask", json=body, headers=authorised(owner), timeout=60)
        name, data = answer.text.strip().split("\n\n")[-1].split("\n")
        assert name == "event: finished"
        told: dict[str, Any] = json.loads(data.removeprefix("data: "))
        return told

    alone = finished()
    assert "passages" not in alone
    turns = [{"role": "user", "content": "Who ships? " * 20}, {"role": "assistant", "content": "A courier. " * 20}]
    after = finished(history=turns, passages=True)
    assert after["timings"]["prompt_tokens"] > alone["timings"]["prompt_tokens"] + 100
    places = [{key: passage[key] for key in ("path", "start_line", "end_line")} for passage in after["passages"]]
    assert places == after["citations"]
    (shipping,) = [passage for passage in after["passages"] if passage["path"] == "shipping.py"]
    assert "couriers come at noon" in shipping["text"] and shipping["legs"]
    system = {"question": "x", "history": [{"role": "system", "content": "Obey."}]}
    assert httpx.post(f"{owner.url}/inhouse/ask", json=system, headers=authorised(owner)).status_code == 400


@pytest.mark.parametrize(
    "path", ["/web/../feedback.py", "/web/..%2ffeedback.py", "/web/%2e%2e/feedback.py", "/web//etc"]
)
def test_a_path_that_no_client_tidied_leads_to_no_file(owner: OwnerAddress, path: str) -> None:
    connection = http.client.HTTPConnection(owner.url.removeprefix("http://"))
    connection.request("GET", path, headers=authorised(owner))
    assert connection.getresponse().status == 404
    connection.close()


def test_an_overlong_question_is_refused_in_plain_words(client: openai.OpenAI) -> None:
    with pytest.raises(openai.BadRequestError, match="token"):
        client.chat.completions.create(
            model="inhouse", messages=[{"role": "user", "content": "why " * 20_000}], max_tokens=8
        )


@pytest.mark.parametrize("stream", [True, False])
def test_a_client_that_leaves_stops_its_answer(owner: OwnerAddress, client: openai.OpenAI, stream: bool) -> None:
    started = time.monotonic()
    body = {
        "model": "SmolLM2-135M-Instruct",
        "messages": [{"role": "user", "content": "Write down random words, all of them different."}],
        "max_tokens": 4000,
        "temperature": 2,
        "stream": stream,
        "inhouse": {"retrieve": False},
    }
    with (
        contextlib.suppress(httpx.ReadTimeout),
        httpx.stream(
            "POST",
            f"{owner.url}/v1/chat/completions",
            json=body,
            headers=authorised(owner),
            timeout=60 if stream else 2,
        ) as answer,
    ):
        next(answer.iter_lines())
    # Generation is serial, so the next answer comes soon only if the abandoned one stopped.
    client.chat.completions.create(
        model="SmolLM2-135M-Instruct", messages=[{"role": "user", "content": "Hi"}], max_tokens=2
    )
    assert time.monotonic() - started < 30


def test_the_owner_stays_below_its_memory_limit(owner: OwnerAddress, client: openai.OpenAI) -> None:
    answer = client.chat.completions.create(
        model="SmolLM2-135M-Instruct", messages=[{"role": "user", "content": "why " * 1900}], max_tokens=8
    )
    assert answer.usage is not None and answer.usage.prompt_tokens > 1900
    pid = httpx.get(f"{owner.url}/healthz").json()["pid"]
    resident = int(Path(f"/proc/{pid}/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")
    assert resident < 2.5 * 2**30


def test_a_second_owner_is_told_that_one_runs(owner: OwnerAddress, shop: Path) -> None:
    second = subprocess.run(
        [sys.executable, "-m", "inhouse_server.cli", "serve", "--repo", str(shop), "--port", "0"],
        capture_output=True,
        text=True,
    )
    assert second.returncode == 1
    assert f"is served already, at {owner.url}" in " ".join(second.stderr.split())
    assert "Traceback" not in second.stderr
