"""Every prompt and every chat rendering, and the token budget.

Training, evaluation and serving all come here, so that a model is asked in exactly the tokens that it was
trained on. Text of users and repositories never becomes a control token: a file that spells ``<|im_end|>``
is read as those characters and cannot end a turn.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Any, Protocol

from inhouse_retrieval import InhouseError, Passage
from inhouse_retrieval.passage import of_day

from .engine import Message
from .line_tokens import LineTokens

IGNORED = -100
"""The label of a token that the loss skips."""

SYSTEM = (
    "You are the assistant of this code repository. Answer with the repository's own code and conventions. "
    "When passages are given, rely on them and name the file. Say so when you do not know."
)
"""Short: small models follow short instructions best, and each question pays for every token of it."""

NOT_HERE = "That is not in this repository, as far as the passages show."
"""How the product says that it does not know; what rows teach whose passages hold no answer."""


# ----------------------------------------------------------------------------------------------------------
# From text and messages to token ids


@lru_cache(maxsize=4)
def _literal(tokenizer: Any) -> LineTokens:
    """A twin of the tokenizer that reads control tokens as plain text."""
    from tokenizers import Tokenizer

    twin = Tokenizer.from_str(tokenizer.backend_tokenizer.to_str())
    twin.encode_special_tokens = True
    twin.no_truncation()
    twin.no_padding()
    return LineTokens(twin)


@lru_cache(maxsize=4)
def _control_tokens(tokenizer: Any) -> re.Pattern[str] | None:
    """Matches every added token that the tokenizer treats as special; ``None`` when there are none."""
    special = [token.content for token in tokenizer.added_tokens_decoder.values() if token.special]
    special.sort(key=len, reverse=True)
    return re.compile("|".join(map(re.escape, special))) if special else None


def literal_ids(tokenizer: Any, text: str) -> list[int]:
    """Token ids of ``text`` as data: nothing is added, and control tokens in it are plain characters."""
    return _literal(tokenizer).ids(text)


def literal_starts(tokenizer: Any, text: str) -> list[int]:
    """The character at which each token of :func:`literal_ids` begins."""
    return _literal(tokenizer).starts(text)


def end_of_turn_ids(tokenizer: Any) -> frozenset[int]:
    """Ids that end an assistant's turn: the end token, and what the template writes there (Llama 3: ``<|eot_id|>``)."""
    ends = {tokenizer.eos_token_id}
    if tokenizer.chat_template:
        ends.add(_turn_end(tokenizer, str(tokenizer.chat_template))[0])
    return frozenset(ends - {None})


@lru_cache(maxsize=4)
def _turn_end(tokenizer: Any, template: str) -> tuple[int | None, str]:
    """The control token that follows the assistant's words, and the opening of a next turn that comes after it although
    none was asked for (the first template of Llama 3 opens one always); empty for most."""
    turns = [{"role": role, "content": f"the {role}"} for role in ("user", "assistant")]
    unasked, asked = (
        str(tokenizer.apply_chat_template(turns, tokenize=False, add_generation_prompt=add, enable_thinking=False))
        for add in (False, True)
    )
    tail = unasked.rpartition("the assistant")[2]
    control = _control_tokens(tokenizer)
    end = control.search(tail) if control is not None else None
    if control is None or end is None:
        return None, ""
    rest = tail[end.end() :]
    opens_always = unasked == asked and control.search(rest) is not None
    return tokenizer.convert_tokens_to_ids(end.group()), rest if opens_always else ""


@lru_cache(maxsize=4)
def _keeps_system_turn(tokenizer: Any, template: str) -> bool:
    """Whether the template renders a system turn, and goes on doing so once the assistant has answered.

    That of Mistral-7B-Instruct-v0.2 refuses one. That of v0.3 shows it only while the user has the last word, so an
    answer would be learned without what it was asked with.
    """
    from jinja2 import TemplateError

    turns = [{"role": role, "content": f"the {role}"} for role in ("system", "user", "assistant")]
    try:
        return "the system" in str(tokenizer.apply_chat_template(turns, tokenize=False, enable_thinking=False))
    except TemplateError:
        return False


def _render(tokenizer: Any, messages: Sequence[Message], add_generation_prompt: bool) -> str:
    turns = [{"role": message.role, "content": message.content} for message in messages]
    opens_with_system = [turn["role"] for turn in turns[:2]] == ["system", "user"]
    if opens_with_system and not _keeps_system_turn(tokenizer, str(tokenizer.chat_template)):
        # It then opens the first user turn.
        turns[:2] = [{"role": "user", "content": f"{turns[0]['content']}\n\n{turns[1]['content']}"}]
    text = str(
        tokenizer.apply_chat_template(
            turns, tokenize=False, add_generation_prompt=add_generation_prompt, enable_thinking=False
        )
    )
    opening = _turn_end(tokenizer, str(tokenizer.chat_template))[1]
    return text.removesuffix(opening) if not add_generation_prompt and turns[-1]["role"] == "assistant" else text


def chat_ids(tokenizer: Any, messages: Sequence[Message], add_generation_prompt: bool) -> list[int]:
    """Token ids of a conversation in the model's own chat template.

    Args:
        add_generation_prompt: whether the ids end where the assistant begins to speak.
    """
    control = _control_tokens(tokenizer)
    if control is None or not any(control.search(message.content) for message in messages):
        text = _render(tokenizer, messages, add_generation_prompt)
        if control is not None and _literal(tokenizer).by_lines:
            # What stands between control tokens does not depend on them then.
            return _controlled_ids(tokenizer, control, text, lambda plain: plain)
        return list(tokenizer(text, add_special_tokens=False)["input_ids"])
    # Control tokens in the content are hidden from the template behind characters of the private use area,
    # so that those that the template itself wrote can be told apart. Such a character in the content is hidden, too.
    found: list[str] = []
    hiding = re.compile(f"{control.pattern}|\U0010fffc", control.flags)

    def hide(match: re.Match[str]) -> str:
        found.append(match.group())
        return f"\U0010fffc{len(found) - 1}\U0010fffd"

    def show(match: re.Match[str]) -> str:
        return found[int(match.group(1))]

    hidden = [Message(message.role, hiding.sub(hide, message.content)) for message in messages]
    text = _render(tokenizer, hidden, add_generation_prompt)
    return _controlled_ids(tokenizer, control, text, lambda plain: re.sub("\U0010fffc([0-9]+)\U0010fffd", show, plain))


def _controlled_ids(tokenizer: Any, control: re.Pattern[str], text: str, shown: Callable[[str], str]) -> list[int]:
    """Token ids of a rendered text whose control tokens are ones; ``shown`` is what stands between them, as data."""
    ids: list[int] = []
    position = 0
    for match in [*control.finditer(text), None]:
        plain = shown(text[position : match.start() if match else len(text)])
        if plain:
            ids += literal_ids(tokenizer, plain)
        if match:
            ids.append(tokenizer.convert_tokens_to_ids(match.group()))
            position = match.end()
    return ids


def chat_row(tokenizer: Any, messages: Sequence[Message]) -> tuple[list[int], list[int]]:
    """``(input_ids, labels)`` of a training conversation.

    Labels are set on what the assistant says and on the token that ends its turn, the rest is
    :data:`IGNORED`. The ids before each answer are those that serving sends, so answers lose leading blanks:
    the generation prompt ends the line.

    Raises:
        InhouseError: the chat template renders earlier turns differently once later ones follow.
    """
    turns = [Message(turn.role, turn.content.lstrip()) if turn.role == "assistant" else turn for turn in messages]
    ids = chat_ids(tokenizer, turns, add_generation_prompt=False)
    labels = [IGNORED] * len(ids)
    ends = end_of_turn_ids(tokenizer)
    for number, turn in enumerate(turns):
        if turn.role != "assistant":
            continue
        asked = chat_ids(tokenizer, turns[:number], add_generation_prompt=True)
        is_last = number + 1 == len(turns)
        answered = ids if is_last else chat_ids(tokenizer, turns[: number + 1], add_generation_prompt=False)
        if ids[: len(asked)] != asked or ids[: len(answered)] != answered:
            raise InhouseError(
                "The chat template of this base model renders a turn differently once another follows.",
                "Train it on conversations of one question and one answer.",
            )
        stop = next((i + 1 for i in range(len(answered) - 1, len(asked) - 1, -1) if ids[i] in ends), len(answered))
        labels[len(asked) : stop] = ids[len(asked) : stop]
    return ids, labels


def without_end(tokenizer: Any, ids: list[int], labels: list[int]) -> tuple[list[int], list[int]]:
    """A :func:`chat_row` whose last answer was cut: it closes with that answer's last token, and no end is learned."""
    special = set(tokenizer.all_special_ids)
    end = max(at for at, label in enumerate(labels) if label != IGNORED and label not in special) + 1
    return ids[:end], labels[:end]


@lru_cache(maxsize=4)
def _opening_ids(tokenizer: Any) -> tuple[int, ...]:
    """What the tokenizer puts before a text: the begin-of-sequence token of some models, mostly nothing."""
    plain = tokenizer("a", add_special_tokens=False)["input_ids"]
    whole = tokenizer("a", add_special_tokens=True)["input_ids"]
    start = next((i for i in range(len(whole)) if whole[i : i + len(plain)] == plain), 0)
    return tuple(whole[:start])


def raw_row(tokenizer: Any, text: str, *, ends: bool = True) -> tuple[list[int], list[int]]:
    """``(input_ids, labels)`` of raw text; every token is labelled.

    Args:
        ends: whether the document ends here; if so the row closes with the end token. ``False`` for all but
            the last piece of a document that was split.
    """
    ids = [*_opening_ids(tokenizer), *literal_ids(tokenizer, text)]
    if ends and tokenizer.eos_token_id is not None:
        ids.append(tokenizer.eos_token_id)
    return ids, list(ids)


# ----------------------------------------------------------------------------------------------------------
# The question with its passages


def edit_question(title: str, path: str) -> str:
    """Asks for the lines that a change adds to one file, as a developer would who knows what the change is for."""
    return f"{title}\n\nWrite the lines to add to {path}."


def completion_question(name: str, path: str, title: str = "") -> str:
    """Asks for what follows the head of a definition; ``title`` is that of the change under way, where there is one."""
    asked = f"Write the rest of `{name}` in {path}, and nothing else."
    return f"{title}\n\n{asked}" if title else asked


def change_question(instruction: str, path: str) -> str:
    """Asks for the marked code of ``path`` as it is after the change, to be put in its place."""
    return f"Change the selected code of {path}: {instruction}\n\nAnswer with the whole changed code in one code block."


class SelectedCode(Protocol):
    """Code that the user marked. The server's ``Selection`` is one."""

    @property
    def path(self) -> str: ...
    @property
    def start_line(self) -> int: ...
    @property
    def end_line(self) -> int: ...
    @property
    def text(self) -> str: ...


@dataclass(frozen=True, slots=True)
class AnswerPrompt:
    """A prompt that fits its budget.

    Attributes:
        included: passages that are in the prompt, best first.
        omitted: passages that did not fit, best first.
        dropped_turns: earlier turns that did not fit; the oldest go first.
    """

    messages: tuple[Message, ...]
    included: tuple[Passage, ...]
    omitted: tuple[Passage, ...]
    dropped_turns: int = 0


def code_block(path: str, start_line: int, end_line: int, text: str, remark: str = "") -> str:
    """``path:start-end``, what is to be known of it, and the lines in a fence longer than any fence inside them."""
    fence = "`" * max(3, 1 + max((len(run) for run in re.findall("`+", text)), default=0))
    return f"{path}:{start_line}-{end_line}{remark}\n{fence}\n{text.rstrip(chr(10))}\n{fence}\n"


def passage_remark(passage: Passage) -> str:
    """When a pull request was merged; how old a wiki page is, and whether the code that it describes is newer."""
    if not passage.updated:
        return ""
    if passage.source == "pull_request":
        return f" (pull request, merged on {passage.updated}; the code may have changed since)"
    if not passage.newer_code:
        return f" (wiki page {of_day(passage.updated)})"
    return (
        f" (wiki page {of_day(passage.updated)}; {passage.newer_code}, which it describes, changed on "
        f"{passage.newer_code_updated}: trust the code)"
    )


def _question_message(question: str, passages: Sequence[Passage], selection: SelectedCode | None) -> Message:
    parts = [code_block(p.path, p.start_line, p.end_line, p.text, passage_remark(p)) for p in passages]
    if passages:
        parts.insert(0, "Passages of the repository:\n")
    if selection is not None:
        block = code_block(selection.path, selection.start_line, selection.end_line, selection.text)
        parts.append(f"Selected code:\n\n{block}")
    # The question comes last: small models answer what they read last, and all of the context lies before it.
    return Message("user", "\n".join([*parts, question]) if parts else question)


def build_answer_prompt(
    question: str,
    passages: Sequence[Passage],
    count_tokens: Callable[[Sequence[Message]], int],
    budget: int,
    history: Sequence[Message] = (),
    selection: SelectedCode | None = None,
) -> AnswerPrompt:
    """The messages that ask ``question`` within ``budget`` tokens, generation prompt included.

    The question, the selection and instructions (system turns of ``history``) always stay. Earlier
    turns come next, the latest first and at most half of
    what is left when there are passages to show; then passages, best first. One that does not fit is passed
    over for a smaller one.

    Raises:
        InhouseError: the question, with the selection and the instructions, is longer than the budget.
    """

    system = "\n\n".join([SYSTEM, *(turn.content for turn in history if turn.role == "system")])
    history = [turn for turn in history if turn.role != "system"]

    def messages(turns: Sequence[Message], chosen: Sequence[Passage]) -> tuple[Message, ...]:
        return (Message("system", system), *turns, _question_message(question, chosen, selection))

    least = count_tokens(messages((), ()))
    if least > budget:
        what = "The question with the selected code" if selection is not None else "The question"
        raise InhouseError(
            f"{what} takes {least} tokens, and {budget} fit beside the answer.",
            "Shorten it, select less code, or raise answer.prompt_tokens where the model reads more.",
        )
    limit = least + (budget - least) // 2 if passages else budget
    # An exchange is dropped whole, so that the conversation still opens with a user's turn.
    starts = [i for i, turn in enumerate(history) if turn.role == "user"]
    kept: Sequence[Message] = ()
    for start in reversed(starts):
        if count_tokens(messages(history[start:], ())) > limit:
            break
        kept = history[start:]
    included: list[Passage] = []
    omitted: list[Passage] = []
    for passage in passages:
        if count_tokens(messages(kept, [*included, passage])) <= budget:
            included.append(passage)
        else:
            omitted.append(passage)
    return AnswerPrompt(messages(kept, included), tuple(included), tuple(omitted), len(history) - len(kept))
