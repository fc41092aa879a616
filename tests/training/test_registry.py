"""The adapter registry: content addresses, damage, promotion, rollback, many writers."""

from __future__ import annotations

import json
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest

from inhouse_retrieval import InhouseError, StateUnwritable
from inhouse_training import AdapterManifest, Registry
from inhouse_training.registry import WEIGHTS_NAME, Judged, Overtaken

MANIFEST = AdapterManifest("SmolLM2", "b179", "abc123", recipe={"rank": 16}, metrics={"gain": 0.5})


def adapter(folder: Path, weights: bytes) -> Path:
    folder.mkdir(exist_ok=True)
    (folder / WEIGHTS_NAME).write_bytes(weights)
    (folder / "adapter_config.json").write_text('{"peft_type": "LORA"}')
    return folder


@pytest.fixture
def registry(tmp_path: Path) -> Registry:
    return Registry(tmp_path / "adapters")


@pytest.fixture
def three(registry: Registry, tmp_path: Path) -> list[str]:
    return [registry.add(adapter(tmp_path / "new", bytes([n])), MANIFEST).version for n in range(3)]


def test_a_version_is_named_by_its_content(registry: Registry, tmp_path: Path) -> None:
    one = registry.add(adapter(tmp_path / "one", b"weights"), MANIFEST)
    same = registry.add(adapter(tmp_path / "same", b"weights"), MANIFEST)
    other = registry.add(adapter(tmp_path / "other", b"others"), MANIFEST)
    elsewhere = AdapterManifest("Other", "ffff", "abc123")
    moved = registry.add(adapter(tmp_path / "one", b"weights"), elsewhere)
    assert same == one
    assert len({one.version, other.version, moved.version}) == 3
    assert len(one.version) == 12
    assert one.manifest.created and one.manifest.recipe == {"rank": 16}
    assert {each.version for each in registry.list()} == {one.version, other.version, moved.version}


def test_pickles_stay_out(registry: Registry, tmp_path: Path) -> None:
    folder = adapter(tmp_path / "new", b"weights")
    (folder / "training_args.bin").write_bytes(b"pickle")
    version = registry.add(folder, MANIFEST)
    assert not (version.path / "training_args.bin").exists()


def test_a_folder_without_adapter_is_refused(registry: Registry, tmp_path: Path) -> None:
    with pytest.raises(InhouseError, match="holds no adapter"):
        registry.add(tmp_path, MANIFEST)


@pytest.mark.parametrize("damage", ["truncate", "change", "remove", "manifest", "foreign manifest"])
def test_damage_is_refused_and_the_current_one_stays(registry: Registry, three: list[str], damage: str) -> None:
    registry.promote(three[0])
    folder = registry.root / three[1]
    weights = folder / WEIGHTS_NAME
    if damage == "truncate":
        weights.write_bytes(b"")
    elif damage == "change":
        weights.write_bytes(b"other")
    elif damage == "remove":
        weights.unlink()
    elif damage == "manifest":
        (folder / "manifest.json").write_text('{"version":')
    else:
        (folder / "manifest.json").write_bytes((registry.root / three[2] / "manifest.json").read_bytes())
    with pytest.raises(InhouseError, match="damaged") as caught:
        registry.promote(three[1])
    assert "rollback" in caught.value.remedy
    assert registry.current() == three[0]


def test_adding_the_same_content_repairs_it(registry: Registry, three: list[str], tmp_path: Path) -> None:
    (registry.root / three[2] / WEIGHTS_NAME).write_bytes(b"damage")
    assert registry.add(adapter(tmp_path / "again", bytes([2])), MANIFEST).version == three[2]
    assert registry.verify(three[2]) == registry.root / three[2]


def test_promotion_and_rollback(registry: Registry, three: list[str]) -> None:
    assert registry.current() is None
    for version in three:
        registry.promote(version, "better")
    assert registry.rollback() == three[1]
    assert registry.rollback() == three[0]
    registry.promote(three[2])
    assert registry.rollback() == three[0]
    assert registry.rollback() is None
    assert registry.current() is None
    with pytest.raises(InhouseError, match="nothing to go back to"):
        registry.rollback()
    assert [each.version for each in registry.history()][:3] == three
    assert registry.history()[0].note == "better"


def test_a_torn_history_line_loses_nothing_else(registry: Registry, three: list[str]) -> None:
    registry.promote(three[0])
    with (registry.root / "history.jsonl").open("a") as file:
        file.write('{"version": "cut sh')
    registry.promote(three[1])
    assert [each.version for each in registry.history()] == three[:2]


def test_no_name_leads_out_of_the_registry(registry: Registry, three: list[str]) -> None:
    for name in ("", ".", "..", "../adapters", f"{three[0]}/..", ".lock", "unknown"):
        with pytest.raises(InhouseError, match="no adapter version"):
            registry.verify(name)


def test_a_killed_add_leaves_nothing_behind(registry: Registry, three: list[str], tmp_path: Path) -> None:
    (registry.root / ".adding-killed").mkdir()
    assert len(registry.list()) == 3
    registry.add(adapter(tmp_path / "next", b"next"), MANIFEST)
    assert not list(registry.root.glob(".adding-*"))


def test_an_unwritable_registry_is_said_plainly(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    registry = Registry(tmp_path / "file" / "adapters")
    assert registry.list() == () and registry.current() is None and registry.history() == ()
    with pytest.raises(StateUnwritable, match="cannot be written"):
        registry.add(adapter(tmp_path / "new", b"x"), MANIFEST)


def test_current_is_always_one_whole_version(registry: Registry, three: list[str]) -> None:
    """Another process promotes as fast as it can and is killed: a reader sees whole versions only."""
    registry.promote(three[0])
    script = (
        "import sys; from pathlib import Path; from inhouse_training import Registry\n"
        "registry = Registry(Path(sys.argv[1]))\n"
        "for turn in range(10**6): registry.promote(sys.argv[2 + turn % 3]); print(turn, flush=True)"
    )
    command = [sys.executable, "-c", script, str(registry.root), *three]
    for _ in range(3):
        child = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
        assert child.stdout is not None
        for _ in range(5):
            child.stdout.readline()
            assert registry.current() in three
        child.kill()
        child.wait()
        child.stdout.close()
        assert registry.current() in three
    assert registry.promote(three[1]).current


def test_a_rollback_killed_before_it_took_effect_loses_no_way_back(registry: Registry, three: list[str]) -> None:
    registry.promote(three[0])
    registry.promote(three[1])
    history = registry.root / "history.jsonl"
    # What a kill between the two writes leaves: the line is there, the current version is not.
    line = {"version": three[0], "at": "2026-01-01T00:00:00+00:00", "note": f"rolled back from {three[1]}."}
    history.write_text(history.read_text() + json.dumps(line) + "\n")
    assert registry.current() == three[1]
    assert registry.rollback() == three[0]
    assert registry.rollback() is None

    line = {"version": three[2], "at": "2026-01-01T00:00:00+00:00", "note": "promoted"}
    history.write_text(history.read_text() + json.dumps(line) + "\n")
    with pytest.raises(InhouseError, match="nothing to go back to"):
        registry.rollback()
    registry.promote(three[1])
    assert registry.rollback() is None


def names(registry: Registry) -> set[str]:
    return {each.version for each in registry.list()}


def test_collecting_keeps_what_is_current_promoted_lately_held_or_the_way_back(
    registry: Registry, tmp_path: Path
) -> None:
    assert registry.collect() == ()
    made = [registry.add(adapter(tmp_path / "new", bytes([n])), MANIFEST).version for n in range(8)]
    for version in made[:5]:
        registry.promote(version)
    (registry.root / "notes of ours").mkdir()

    would = registry.unused(keep=2, held=made[6:7])
    assert {entry.version for entry in would} == {*made[:3], made[5], made[7]}
    assert names(registry) == set(made), "asking removes nothing"
    gone = registry.collect(keep=2, held=made[6:7])
    assert gone == would and names(registry) == {made[3], made[4], made[6]}
    assert all(entry.size > len('{"peft_type": "LORA"}') for entry in gone)
    assert registry.removed() == {*made[:3], made[5], made[7]}
    assert not (registry.root / ".trash").exists() and (registry.root / "notes of ours").exists()

    # One is kept for itself, the other since a rollback goes back to it.
    assert names(registry) >= {made[3], made[4]} and registry.collect(keep=1)[0].version == made[6]
    assert registry.rollback() == made[3]
    assert registry.rollback() is None, "what was removed is passed over"
    assert made[0] in registry.history()[-1].note and registry.current() is None
    with pytest.raises(InhouseError, match="nothing to go back to"):
        registry.rollback()
    registry.promote(made[3])
    assert registry.rollback() is None
    registry.promote(made[3])
    registry.add(adapter(tmp_path / "new", bytes([7])), MANIFEST)
    assert registry.is_sound(made[7]), "what was removed may come again"


@pytest.mark.parametrize("left", ["line", "trash"])
def test_a_killed_collection_is_finished_by_the_next(registry: Registry, three: list[str], left: str) -> None:
    registry.promote(three[0])
    if left == "line":  # noted, not renamed yet
        (registry.root / "removed.jsonl").write_text(json.dumps({"version": three[1], "size": 1, "at": ""}) + '\n{"ver')
    else:  # renamed, half deleted
        trash = registry.root / ".trash" / three[1]
        trash.mkdir(parents=True)
        (trash / WEIGHTS_NAME).write_bytes(b"left")
    assert registry.is_sound(three[1])
    assert {entry.version for entry in registry.collect()} == {three[1], three[2]}
    assert names(registry) == {three[0]} and registry.removed() == {three[1], three[2]}
    assert not (registry.root / ".trash").exists()


def test_a_rollback_passes_over_what_was_damaged(registry: Registry, three: list[str]) -> None:
    for version in three:
        registry.promote(version)
    (registry.root / three[1] / "adapter_model.safetensors").write_bytes(b"other")
    assert registry.rollback() == three[0] and three[1] in registry.history()[-1].note
    assert registry.rollback() is None
    registry.promote(three[0])
    registry.use_base("by hand")
    assert registry.current() is None and registry.rollback() == three[0]


def test_what_was_judged_against_another_version_is_not_promoted(registry: Registry, three: list[str]) -> None:
    registry.promote(three[0])
    registry.promote(three[1], judged_against=Judged(three[0]))
    with pytest.raises(Overtaken, match=f"{three[1]} became current"):
        registry.promote(three[2], judged_against=Judged(three[0]))
    assert registry.current() == three[1]
    with pytest.raises(Overtaken):
        registry.promote(three[2], judged_against=Judged(None))
    registry.use_base()
    assert registry.promote(three[2], judged_against=Judged(None)).current


def test_rejected_candidates_go_but_for_the_newest(registry: Registry, tmp_path: Path) -> None:
    made = []
    for number in range(7):
        created = replace(MANIFEST, created=f"2026-01-0{number + 1}T00:00:00+00:00", evaluated=True)
        made.append(registry.add(adapter(tmp_path / "new", bytes([number])), created).version)
    waiting = replace(MANIFEST, created="2025-12-31T00:00:00+00:00", evaluated=False)
    unjudged = registry.add(adapter(tmp_path / "new", b"all data"), waiting).version
    registry.promote(made[1])
    registry.promote(made[2])
    gone = registry.collect_rejected(keep=2, held=[made[0]])
    assert {entry.version for entry in gone} == {made[3], made[4]} and registry.removed() == {made[3], made[4]}
    assert names(registry) == {made[0], made[1], made[2], made[5], made[6], unjudged}
    assert registry.collect_rejected(keep=2, held=[made[0]]) == ()
