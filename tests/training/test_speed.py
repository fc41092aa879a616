"""Fast training steps: the documents of a packed row stay apart, in attention and in compiled layers."""

from __future__ import annotations

from typing import Any

import pytest
import torch

from inhouse_training.speed import bounds_of, compile_layers, use_documents_attention

LENGTHS = (7, 1, 20, 12)
VOCABULARY = 64


def model_with(attention: str) -> Any:
    from transformers import LlamaConfig, LlamaForCausalLM, set_seed

    set_seed(5)
    config = LlamaConfig(
        vocab_size=VOCABULARY,
        hidden_size=32,
        intermediate_size=48,
        num_hidden_layers=2,
        num_attention_heads=4,
        num_key_value_heads=2,
        initializer_range=0.2,
    )
    model = LlamaForCausalLM(config).train()
    if attention == "documents":
        use_documents_attention(model)
    else:
        model.set_attn_implementation(attention)
    return model


def packed(filling: int = 0) -> dict[str, Any]:
    """A row of four documents, as TRL packs it: positions start again with each, also with each token that fills up."""
    torch.manual_seed(6)
    ids = torch.randint(0, VOCABULARY, (1, sum(LENGTHS) + filling))
    positions = torch.cat([torch.arange(length) for length in (*LENGTHS, *[1] * filling)])[None]
    labels = ids.clone()
    labels[positions == 0] = -100
    return {"input_ids": ids, "position_ids": positions, "labels": labels}


def gradients(model: Any, row: dict[str, Any]) -> tuple[float, torch.Tensor]:
    loss = model(**row, use_cache=False).loss
    loss.backward()
    return loss.item(), torch.cat([each.grad.flatten() for each in model.parameters()])


@pytest.mark.parametrize(
    ("begins", "bounds"),
    [
        ([0, 0, 1, 0, 0], [0, 3]),
        ([1, 0, 1, 0], [0, 1, 3]),
        ([0, 0, 0], [0]),
        # What fills a row up is one document, however long.
        ([0, 1, 0, 1, 1, 1], [0, 2, 4]),
        ([0, 0, 1], [0, 3]),
        ([1, 1], [0, 1]),
    ],
)
def test_a_row_is_cut_where_documents_begin(begins: list[int], bounds: list[int]) -> None:
    found = bounds_of(torch.tensor(begins, dtype=torch.bool)).tolist()
    assert found[: len(bounds)] == bounds
    assert len(found) == 64 and set(found[len(bounds) :]) == {len(begins) + 1}


def test_many_documents_take_a_longer_list() -> None:
    row = torch.tensor([0, 1] * 100, dtype=torch.bool)
    found = bounds_of(row)
    assert len(found) == 128 and found.unique().tolist() == [0, *range(2, 201, 2), 201]


@pytest.mark.parametrize("filling", [0, 9])
def test_documents_of_a_packed_row_do_not_see_each_other(filling: int) -> None:
    model, row = model_with("documents"), packed(filling)
    del row["labels"]
    together = model(**row, use_cache=False).logits[0]
    first = 0
    for length in LENGTHS:
        alone = model(row["input_ids"][:, first : first + length], use_cache=False).logits[0]
        torch.testing.assert_close(together[first : first + length], alone)
        first += length
    # Another first document changes nothing in those after it; the test sees what it changes in itself.
    row["input_ids"][0, : LENGTHS[0]] = (row["input_ids"][0, : LENGTHS[0]] + 1) % VOCABULARY
    other = model(**row, use_cache=False).logits[0]
    assert torch.equal(other[LENGTHS[0] :], together[LENGTHS[0] :])
    assert not torch.allclose(other[: LENGTHS[0]], together[: LENGTHS[0]])


@pytest.mark.parametrize("compiled", [False, True])
@pytest.mark.parametrize("checkpointing", [False, True])
def test_loss_and_gradients_are_those_of_a_mask(compiled: bool, checkpointing: bool) -> None:
    loss, expected = gradients(model_with("sdpa"), packed(3))
    model = model_with("documents")
    if checkpointing:
        model.gradient_checkpointing_enable({"use_reentrant": False})
    if compiled:
        # Tracing and differentiating, without making code for a processor, which takes minutes.
        assert compile_layers(model, backend="aot_eager") == 2
    found, gradient = gradients(model, packed(3))
    assert found == pytest.approx(loss, rel=1e-5)
    torch.testing.assert_close(gradient, expected, rtol=1e-4, atol=1e-6)


def test_a_row_that_trl_packed_and_filled_up_is_cut_as_it_was_packed() -> None:
    from trl.trainer.sft_trainer import DataCollatorForLanguageModeling

    collate = DataCollatorForLanguageModeling(pad_token_id=0, padding_free=True, pad_to_multiple_of=64)
    torch.manual_seed(8)
    ids = torch.randint(1, VOCABULARY, (sum(LENGTHS),)).tolist()
    row = collate([{"input_ids": ids, "labels": ids, "seq_lengths": list(LENGTHS)}])
    assert row["input_ids"].shape == (1, 64) and "attention_mask" not in row
    positions = row["position_ids"][0]
    begins = positions[1:] != positions[:-1] + 1
    assert bounds_of(begins).unique().tolist() == [0, 7, 8, 28, 40, 64]
    expected, gradient = gradients(model_with("sdpa"), row)
    loss, found = gradients(model_with("documents"), row)
    assert loss == pytest.approx(expected, rel=1e-5)
    torch.testing.assert_close(found, gradient, rtol=1e-4, atol=1e-6)


def test_rows_that_are_not_packed_are_masked_as_ever() -> None:
    torch.manual_seed(7)
    ids = torch.randint(0, VOCABULARY, (2, 16))
    mask = torch.ones_like(ids)
    mask[1, 10:] = 0
    for row in ({"input_ids": ids, "attention_mask": mask}, {"input_ids": ids[:1]}, {"input_ids": ids}):
        expected = model_with("sdpa")(**row, use_cache=False).logits
        found = model_with("documents")(**row, use_cache=False).logits
        torch.testing.assert_close(found, expected)
