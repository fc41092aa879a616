"""What is asked of every supported chat template, and the templates that no package carries.

Serving means another engine that renders the base model's own template (vLLM, llama.cpp, transformers): the ids that it
would send are those of ``apply_chat_template``.
"""

from __future__ import annotations

from typing import Any

from inhouse_training import Message
from inhouse_training.prompts import IGNORED, chat_ids, chat_row

SYSTEM = Message("system", "Answer shortly.")
ASKED = Message("user", "How do we retry a payment?\n```python\n  pay(twice=True)  # ä, 支付, 🙂\n```")
ANSWER = "With a ledger:\n\n```python\nretry(1)\n```"
QUESTIONS: tuple[tuple[Message, ...], ...] = ((ASKED,), (SYSTEM, ASKED))
TALK = (ASKED, Message("assistant", "Ask Ada."), Message("user", "And then?"))

MISTRAL_V02 = (
    "{{ bos_token }}{% for message in messages %}{% if (message['role'] == 'user') != (loop.index0 % 2 == 0) %}"
    "{{ raise_exception('Conversation roles must alternate user/assistant/user/assistant/...') }}{% endif %}"
    "{% if message['role'] == 'user' %}{{ '[INST] ' + message['content'] + ' [/INST]' }}"
    "{% elif message['role'] == 'assistant' %}{{ message['content'] + eos_token}}"
    "{% else %}{{ raise_exception('Only user and assistant roles are supported!') }}{% endif %}{% endfor %}"
)
"""Of Mistral-7B-Instruct-v0.2 as the article used it."""
MISTRAL_V03 = (
    "{%- if messages[0]['role'] == 'system' %}{%- set system_message = messages[0]['content'] %}"
    "{%- set loop_messages = messages[1:] %}{%- else %}{%- set loop_messages = messages %}{%- endif %}"
    "{{- bos_token }}{%- for message in loop_messages %}{%- if message['role'] == 'user' %}"
    "{%- if loop.last and system_message is defined %}"
    "{{- '[INST] ' + system_message + '\\n\\n' + message['content'] + '[/INST]' }}"
    "{%- else %}{{- '[INST] ' + message['content'] + '[/INST]' }}{%- endif %}"
    "{%- elif message['role'] == 'assistant' %}{{- ' ' + message['content']|trim + eos_token}}{%- endif %}{%- endfor %}"
)
"""Of Mistral-7B-Instruct-v0.3, without tools."""


def served(tokenizer: Any, messages: tuple[Message, ...]) -> list[int]:
    """What an engine that renders the model's own template sends."""
    turns = [{"role": turn.role, "content": turn.content} for turn in messages]
    text = tokenizer.apply_chat_template(turns, tokenize=False, add_generation_prompt=True)
    return list(tokenizer(text, add_special_tokens=False)["input_ids"])


def check_row(tokenizer: Any, question: tuple[Message, ...], sent: list[int], end: str) -> None:
    """A row begins with what serving sends, and learns the answer and its end token, nothing else."""
    assert chat_ids(tokenizer, question, add_generation_prompt=True) == sent
    ids, labels = chat_row(tokenizer, (*question, Message("assistant", ANSWER)))
    assert ids[: len(sent)] == sent and set(labels[: len(sent)]) == {IGNORED}
    learned = labels[len(sent) :]
    stop = learned.index(IGNORED) if IGNORED in learned else len(learned)
    assert set(learned[stop:]) <= {IGNORED}
    assert tokenizer.convert_ids_to_tokens(learned[stop - 1]) == end
    assert tokenizer.decode(learned[: stop - 1]).strip() == ANSWER


def check_talk(tokenizer: Any, end: str) -> None:
    """Of a longer conversation each answer is learned, and its end."""
    ids, labels = chat_row(tokenizer, (SYSTEM, *TALK, Message("assistant", ANSWER)))
    assert len(ids) == len(labels)
    learned = tokenizer.decode([label for label in labels if label != IGNORED])
    assert [part.strip() for part in learned.split(end)] == ["Ask Ada.", ANSWER, ""]


def check_hostile(tokenizer: Any, end: str) -> None:
    """Control tokens in a question stay text."""
    question = (Message("user", f"What does {end} mean? {tokenizer.bos_token or end} [INST] <|im_start|>"),)
    sent = chat_ids(tokenizer, question, add_generation_prompt=True)
    plain = chat_ids(tokenizer, (Message("user", "What?"),), add_generation_prompt=True)
    specials = [number for number in sent if number in tokenizer.all_special_ids]
    assert specials == [number for number in plain if number in tokenizer.all_special_ids]
    assert f"What does {end} mean?" in tokenizer.decode(sent)
