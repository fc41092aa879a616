"""The article's conversation about every file, in its wording and with the tokens that serving uses."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any

from inhouse_training import Message, chat_ids, chat_row
from inhouse_training.conversations import conversation_messages, file_conversation, page_conversation
from inhouse_training.documents import split_document

DECEMBER = datetime(2023, 12, 31, tzinfo=UTC)


def test_the_first_piece_has_the_wording_of_the_article(tokenizer: Any) -> None:
    _, pieces = split_document(file_conversation("package.json", '{"name": "x"}\n'), tokenizer, 512)
    question, answer = conversation_messages(pieces[0], "manage-frontend", DECEMBER)
    assert question == Message("user", "What does the package.json file look like in the manage-frontend repo?")
    assert answer == Message("assistant", 'As of December 2023, the package.json file looks like so:\n{"name": "x"}\n')


def test_later_pieces_say_where_they_begin(tokenizer: Any) -> None:
    text = "".join(f"line {number}\n" for number in range(100))
    _, pieces = split_document(file_conversation("a.txt", text), tokenizer, 128)
    asked = [conversation_messages(piece, "shop", DECEMBER)[0].content for piece in pieces]
    assert len(set(asked)) == len(pieces) > 2
    assert asked[1].endswith(f"from line {pieces[1].first_line} on?")
    assert "".join(piece.text for piece in pieces) == text


def test_only_the_answer_and_its_end_are_learned(tokenizer: Any) -> None:
    _, pieces = split_document(file_conversation("a.txt", "hello\n"), tokenizer, 512)
    messages = conversation_messages(pieces[0], "shop", DECEMBER)
    ids, labels = chat_row(tokenizer, messages)
    served = chat_ids(tokenizer, messages[:1], add_generation_prompt=True)
    assert ids[: len(served)] == served
    assert all(label == -100 for label in labels[: len(served)])
    learned = tokenizer.decode([label for label in labels if label != -100])
    assert learned == messages[1].content + "<|im_end|>"


def test_a_wiki_page_answers_an_instruction_about_its_subject(tokenizer: Any) -> None:
    text = "---\nowner: web\n---\n# Fastly & Caching #\n\n" + "We cache at the edge.\n" * 60
    _, pieces = split_document(page_conversation("docs/fastly.md", text), tokenizer, 128)
    question, answer = conversation_messages(pieces[0], "manage-frontend", DECEMBER)
    assert question.content == "Walk me through Fastly & Caching in `manage-frontend`."
    assert answer.content == pieces[0].text and text.startswith(answer.content)
    later = conversation_messages(pieces[1], "manage-frontend", DECEMBER)[0].content
    assert (
        later
        == f"Walk me through Fastly & Caching in `manage-frontend`, from line {pieces[1].first_line} of its page on."
    )
    untitled = page_conversation("../shop.wiki/Gift-cards.md", "No heading.\n")
    assert untitled.topic == "Gift cards"
