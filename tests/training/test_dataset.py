"""The dataset: split by time first, every token accounted for, the same bytes every time."""

from __future__ import annotations

import json
from collections import defaultdict
from dataclasses import replace
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest

from inhouse_retrieval import (
    Comment,
    InhouseError,
    PullRequest,
    PullRequestStore,
    Repository,
    ReviewComment,
    no_progress,
)
from inhouse_training import SYNTHETIC, BaseModel, open_run
from inhouse_training.cut import cut_position, cut_repository, held_out_change
from inhouse_training.dataset import Dataset, build_dataset, repository_name
from inhouse_training.documents import added_lines
from inhouse_training.forgetting_texts import FORGETTING_TEXTS
from inhouse_training.provenance import in_split
from inhouse_training.recipe import Recipe
from inhouse_training.row_spool import RowSpool

from .history import commit, git, handler, make_history


def changes(count: int, added: str = "+new line\n") -> list[PullRequest]:
    """Pull requests, newest first, each of which adds a line (or does what ``added`` says)."""
    from inhouse_retrieval import ChangedFile

    return [
        PullRequest(
            number, f"Change {number}", "", None, None, None, f"{number:040x}", "p" * 40,
            (ChangedFile("a.py", "modified", f"@@ -1 +1,2 @@\n old\n{added}"),),
        )
        for number in range(count, 0, -1)
    ]  # fmt: skip


@pytest.mark.parametrize(("count", "held_out"), [(10, 5), (24, 12), (40, 20), (59, 29), (60, 30), (130, 30), (400, 40)])
def test_thirty_or_a_tenth_is_held_out_but_never_more_than_half(count: int, held_out: int) -> None:
    assert cut_position(changes(count)) == held_out


def test_changes_that_add_nothing_are_held_out_too_but_do_not_count() -> None:
    history = changes(100)
    for number in range(0, 20, 2):
        history[number] = changes(100, added="-gone\n")[number]
    assert cut_position(history) == 40
    assert sum(held_out_change(change) is not None for change in history[:40]) == 30


@pytest.mark.parametrize("count", [0, 1, 9])
def test_too_short_a_history_is_told_plainly(count: int) -> None:
    with pytest.raises(InhouseError, match="too short to train and to test on"):
        cut_position(changes(count))


def test_added_lines_end_where_git_ends_them() -> None:
    patch = "@@ -1,2 +1,3 @@\n ctx\x0c+not added\n+a = 1\x0cb = 2\n+c\u2028d\x85e\n"
    assert added_lines(patch) == "a = 1\x0cb = 2\nc\u2028d\x85e"


def test_added_lines_are_read_from_hunks_only() -> None:
    assert added_lines("@@ -1,2 +1,3 @@\n context\n-old\n+new\n+++ counter\n@@ -9 +9 @@\n+last\n") == (
        "new\n++ counter\nlast"
    )
    assert added_lines("") == ""


@pytest.fixture
def dataset(history: Repository, tokenizer: Any, tiny_recipe: Recipe, tmp_path: Path) -> Dataset:
    cut = cut_repository(history, tiny_recipe)
    return build_dataset(history, tokenizer, tiny_recipe, cut, tmp_path / "dataset")


def test_nothing_after_the_cut_is_in_the_rows(dataset: Dataset, history: Repository, tokenizer: Any) -> None:
    snapshot = dataset.manifest["snapshot"]
    assert snapshot == git(history.root, "rev-parse", "HEAD~11")
    text = "".join(tokenizer.decode(row["input_ids"]) for row in dataset.rows)
    later = set(git(history.root, "log", "--format=%H", f"{snapshot}..HEAD").split())
    assert {change.commit for change in dataset.held_out} == later
    assert set(dataset.manifest["changes"]["held_out_commits"]) == later
    for name in (
        git(history.root, "log", "--format=%s", f"{snapshot}..HEAD").replace("Let clerks update a ", "").split()
    ):
        assert f"async def update_{name}(" not in text
    earlier = set(git(history.root, "log", "--format=%H", snapshot).split())
    assert set(dataset.manifest["changes"]["training_commits"]) < earlier


def test_every_token_is_accounted_for(dataset: Dataset) -> None:
    trained: dict[str, int] = defaultdict(int)
    for row in dataset.rows:
        trained[row["kind"]] += row["source_tokens"]
        assert len(row["input_ids"]) == len(row["labels"]) <= 192
    left_out: dict[str, int] = defaultdict(int)
    for line in (dataset.directory / "left_out.jsonl").read_text().splitlines():
        entry = json.loads(line)
        left_out[entry["kind"]] += entry.get("tokens", 0)
    for kind, tokens in dataset.manifest["tokens"].items():
        assert tokens["trained"] == trained[kind]
        # This repository has no wiki and no exports, and its recipe only files, conversations and changes.
        assert trained[kind] > 0 or kind in (
            "page",
            "written",
            "thread",
            "edit",
            "completion",
            "review",
            "replay",
            *SYNTHETIC,
        )
        assert sum(tokens["dropped"].values()) == left_out[kind]
        assert tokens["read"] == tokens["trained"] + tokens["held_out"] + left_out[kind]
    assert dataset.manifest["row_tokens"] == sum(len(row["input_ids"]) for row in dataset.rows) <= 6000
    assert "over the recipe's token budget" in dataset.manifest["tokens"]["change"]["dropped"]


def test_every_row_says_where_it_comes_from(dataset: Dataset, history: Repository) -> None:
    snapshot = dataset.manifest["snapshot"]
    for row in dataset.rows:
        told = json.loads(row["origin"])
        assert (told["generator"], told["split"]) == ("no model", "training")
        [source] = told["sources"]
        if row["kind"] == "change":
            assert source["commit"] == row["name"] in dataset.manifest["changes"]["training_commits"]
        else:
            assert (source["place"], source["commit"]) == (row["name"], snapshot)
            assert source["blob"] == git(history.root, "rev-parse", f"{snapshot}:{row['name']}").strip()


def test_the_same_inputs_give_the_same_bytes(
    dataset: Dataset, history: Repository, tokenizer: Any, tiny_recipe: Recipe, tmp_path: Path
) -> None:
    again = build_dataset(history, tokenizer, tiny_recipe, cut_repository(history, tiny_recipe), tmp_path / "again")
    for name in ("rows.arrow", "held_out.jsonl", "left_out.jsonl", "manifest.json"):
        assert (again.directory / name).read_bytes() == (dataset.directory / name).read_bytes(), name


def test_the_last_conversations_can_be_kept_for_validation_as_in_the_article(
    history: Repository, tokenizer: Any, tiny_recipe: Recipe, tmp_path: Path
) -> None:
    cut = cut_repository(history, tiny_recipe)

    def build(name: str, **data: Any) -> Dataset:
        recipe = tiny_recipe.model_copy(update={"data": tiny_recipe.data.model_copy(update=data)})
        return build_dataset(history, tokenizer, recipe, cut, tmp_path / name)

    usual = build("usual", max_train_tokens=0)
    kept = build("kept", max_train_tokens=0, validation_conversations=0.1)
    assert usual.validation is None and "validation" not in usual.manifest
    assert kept.validation is not None
    rows, trained, held = list(usual.rows), list(kept.rows), list(kept.validation)
    conversations = [row for row in rows if row["kind"] == "conversation"]
    count = -(-len(conversations) // 10)
    assert all(json.loads(row["origin"])["split"] == "validation" for row in held)
    held = [{**row, "origin": in_split(row["origin"], "training")} for row in held]
    assert held == conversations[-count:] and trained == [row for row in rows if row not in held]
    assert kept.manifest["validation"] == {"rows": count, "row_tokens": sum(len(row["input_ids"]) for row in held)}
    assert kept.manifest["changes"] == usual.manifest["changes"] and kept.held_out == usual.held_out
    tokens = kept.manifest["tokens"]["conversation"]
    assert tokens["held_out"] == sum(row["source_tokens"] for row in held)
    assert tokens["read"] == tokens["trained"] + tokens["held_out"] + sum(tokens["dropped"].values())


def test_a_build_that_was_interrupted_leaves_nothing_and_is_done_again(
    history: Repository, tokenizer: Any, tiny_recipe: Recipe, tmp_path: Path
) -> None:
    def stop(stage: str, done: int, total: int | None) -> None:
        if stage == "writing rows" and done == 3:
            raise KeyboardInterrupt

    cut = cut_repository(history, tiny_recipe)
    with pytest.raises(KeyboardInterrupt):
        build_dataset(history, tokenizer, tiny_recipe, cut, tmp_path / "d", stop)
    assert not (tmp_path / "d").exists()
    assert build_dataset(history, tokenizer, tiny_recipe, cut, tmp_path / "d", no_progress).rows.num_rows > 10


def test_bad_files_are_skipped_and_listed_secrets_redacted_copies_and_probes_dropped(
    tokenizer: Any, tiny_recipe: Recipe, tmp_path: Path
) -> None:
    root = tmp_path / "odd"
    make_history(root, 4)
    key = "AKIA" + "Z7QX3MPLK2VBN5RT"
    (root / "link.py").symlink_to("/etc/hostname")
    commit(
        root,
        "Odd files",
        **{
            "image.png": b"\x89PNG\0\0",
            "latin.txt": "déjà vu".encode("latin-1"),
            "empty.txt": "",
            'spaced name\n"quoted".txt': "a plain text\n",
            "settings.txt": f'aws_access_key_id = "{key}"\n',
            "original.txt": handler("thing"),
            "copy.txt": handler("thing"),
            "probe.txt": FORGETTING_TEXTS["English"][0],
            "control.txt": "spells <|im_end|> and <|im_start|>user in its text\n",
        },
    )
    for number in range(10):
        commit(root, f"Note {number}", **{"notes.txt": f"note {number}\n" * (number + 1)})
    repository = Repository.open(root)
    recipe = tiny_recipe.model_copy(
        update={"data": tiny_recipe.data.model_copy(update={"max_train_tokens": 0, "changes": 10})}
    )
    dataset = build_dataset(repository, tokenizer, recipe, cut_repository(repository, recipe), tmp_path / "d")
    text = "".join(tokenizer.decode(row["input_ids"]) for row in dataset.rows)
    assert "a plain text" in text
    assert key not in text
    assert sum(dataset.manifest["redactions"].values()) > 0
    assert "snow in the hills" not in text
    reasons = dataset.manifest["tokens"]["file"]["dropped"]
    assert reasons["same content as another file"] > 0
    assert reasons["holds the text that measures forgetting"] > 0
    skipped = [json.loads(line) for line in (dataset.directory / "left_out.jsonl").read_text().splitlines()]
    named = {entry["name"] for entry in skipped if "tokens" not in entry}
    assert {"image.png", "link.py", "empty.txt"} <= named
    # The control tokens that a file spells are characters: its row ends once, at its end.
    end = tokenizer.convert_tokens_to_ids("<|im_end|>")
    rows = [row for row in dataset.rows if row["name"] == "control.txt" and row["kind"] == "file"]
    assert [row["input_ids"].count(end) for row in rows] == [1]


def test_the_repository_is_called_by_its_origin(history: Repository, tmp_path: Path) -> None:
    assert repository_name(history) == "shop"
    clone = tmp_path / "elsewhere"
    git(tmp_path, "clone", "--quiet", str(history.root), str(clone))
    assert repository_name(Repository.open(clone)) == "shop"


@pytest.mark.parametrize("damage", ["no manifest", "half a manifest", "half the rows", "a file in its place"])
def test_a_damaged_dataset_is_built_again(
    dataset: Dataset, history: Repository, tokenizer: Any, tiny_recipe: Recipe, damage: str
) -> None:
    rows, manifest = dataset.directory / "rows.arrow", dataset.directory / "manifest.json"
    whole = rows.read_bytes()
    match damage:
        case "no manifest":
            manifest.unlink()
        case "half a manifest":
            manifest.write_text(manifest.read_text()[:100])
        case "half the rows":
            rows.write_bytes(whole[: len(whole) // 2])
        case _:
            manifest.unlink()
            manifest.mkdir()
    again = build_dataset(history, tokenizer, tiny_recipe, cut_repository(history, tiny_recipe), dataset.directory)
    assert (again.directory / "rows.arrow").read_bytes() == whole
    assert again.manifest["rows"] > 0


def test_a_signed_commit_and_a_user_who_wants_signatures_shown(tmp_path: Path, tiny_recipe: Recipe) -> None:
    repository = make_history(tmp_path / "signed", commits=12)
    root = repository.root
    plain = git(root, "cat-file", "commit", "HEAD~5")
    head, _, rest = plain.partition("\n\n")
    signature = "gpgsig -----BEGIN PGP SIGNATURE-----\n \n iQ\n -----END PGP SIGNATURE-----"
    (tmp_path / "commit").write_text(f"{head}\n{signature}\n\n{rest}\n")
    signed = git(root, "hash-object", "-t", "commit", "-w", str(tmp_path / "commit"))
    git(root, "replace", git(root, "rev-parse", "HEAD~5"), signed)
    git(root, "config", "log.showSignature", "true")
    cut = cut_repository(Repository.open(root), tiny_recipe)
    assert cut.snapshot == git(root, "rev-parse", "HEAD~5")
    assert cut.as_of.year >= 2020
    assert all(change.created_at.year >= 2020 for change in [*cut.training, *cut.held_out])


def test_wiki_pages_are_learned_as_they_were_at_the_cut(
    tokenizer: Any, tiny_recipe: Recipe, tmp_path: Path, base_model: BaseModel
) -> None:
    root = tmp_path / "shop"
    make_history(root, commits=12)
    wiki = tmp_path / "shop.wiki"
    wiki.mkdir()
    git(wiki, "init", "--quiet", "--initial-branch", "master")
    repository = Repository.open(root).with_wiki(["../shop.wiki"])
    cut = cut_repository(repository, tiny_recipe)
    inputs = open_run(repository, tmp_path / "state", tiny_recipe, base_model).inputs

    def write_page(name: str, text: str, days_after_the_cut: int) -> None:
        moment = (cut.as_of + timedelta(days=days_after_the_cut)).isoformat()
        (wiki / name).write_text(text)
        git(wiki, "add", "--all")
        with pytest.MonkeyPatch.context() as patch:
            patch.setenv("GIT_COMMITTER_DATE", moment)
            git(wiki, "commit", "--quiet", "--message", name)

    write_page("Vouchers.md", "# Vouchers\n\nA second voucher replaces the first.\n", -1)
    before = open_run(repository, tmp_path / "state", tiny_recipe, base_model).inputs
    write_page("Plans.md", "# Plans\n\nNobody may know this yet.\n", 1)
    unbounded = tiny_recipe.model_copy(update={"data": tiny_recipe.data.model_copy(update={"max_train_tokens": 0})})
    built = build_dataset(repository, tokenizer, unbounded, cut, tmp_path / "dataset")

    rows = [(row["kind"], row["name"], tokenizer.decode(row["input_ids"])) for row in built.rows]
    pages = {kind: text for kind, name, text in rows if name == "../shop.wiki/Vouchers.md"}
    assert pages["page"].startswith("- Wiki page: Vouchers\nContent:\n# Vouchers")
    assert "Walk me through Vouchers in `shop`." in pages["conversation"]
    assert not any("Nobody may know" in text for _, _, text in rows)
    assert built.manifest["tokens"]["page"]["trained"] == built.manifest["tokens"]["page"]["read"] > 0
    # A page that is new before the cut is another input; one after it is none.
    assert inputs["wiki"] != before["wiki"]
    assert open_run(repository, tmp_path / "state", tiny_recipe, base_model).inputs["wiki"] == before["wiki"]


def squashed(root: Path, count: int) -> Repository:
    """A history of numbered pull requests."""
    make_history(root, 1)
    for number in range(1, count + 1):
        commit(root, f"Let clerks update {number} (#{number})", **{f"area{number}_py": handler(f"thing{number}")})
    return Repository.open(root)


def test_what_the_forge_says_is_learned_but_nothing_from_after_the_snapshot(
    tokenizer: Any, tiny_recipe: Recipe, tiny_base: BaseModel, tmp_path: Path
) -> None:
    repository, state = squashed(tmp_path / "shop", 12), tmp_path / "state"
    state.mkdir()
    recipe = tiny_recipe.model_copy(update={"data": tiny_recipe.data.model_copy(update={"max_train_tokens": 0})})
    before = open_run(repository, state, recipe, tiny_base)
    assert "forge" not in before.inputs and (before.cut.forge, before.cut.later_comments) == ("", 0)
    with PullRequestStore.in_state(state) as store:
        assert open_run(repository, state, recipe, tiny_base).directory == before.directory
        as_of = before.cut.as_of
        for change in (*before.cut.training, *before.cut.held_out):
            if change.number is None:
                continue
            told = Comment("member", as_of, f"Early word {change.number}. " + "AKIA" + "Z7QX3MPLK2VBN5RT")
            late = Comment("member", as_of + timedelta(seconds=1), f"Late word {change.number}.")
            remark = ReviewComment(f"area{change.number}.py", 1, "new", "@@\n+x", "owner", as_of, "A remark.")
            described = replace(change, description=f"Why {change.number}.", review_comments=(remark,))
            store.put(replace(described, comments=(told, late)), "1")
        run = open_run(repository, state, recipe, tiny_base)
        assert run.directory != before.directory
        dataset = build_dataset(repository, tokenizer, recipe, run.cut, run.dataset)
        text = "".join(tokenizer.decode(row["input_ids"]) for row in dataset.rows)
        learned = [change.number for change in run.cut.training if change.number is not None]
        held_out = [change.number for change in run.cut.held_out]
        assert len(learned) == len(held_out) == 6
        for number in learned:
            assert f"Early word {number}." in text and f"Why {number}." in text
        for number in held_out:
            assert f"Early word {number}." not in text and f"Why {number}." not in text
        assert "Late word" not in text and "AKIA" not in text and "A remark." in text
        assert dataset.manifest["changes"]["comments"] == 2 * len(learned)
        assert dataset.manifest["changes"]["later_comments"] == len(learned)

        # A word after the snapshot changes nothing to learn from; one before it does.
        changed = store.get(learned[0])
        assert changed is not None
        store.put(replace(changed, comments=(*changed.comments, late)), "2")
        assert open_run(repository, state, recipe, tiny_base).directory == run.directory
        store.put(replace(changed, comments=(told, told)), "3")
        assert open_run(repository, state, recipe, tiny_base).directory != run.directory


def test_spooled_rows_come_back_in_any_order(tmp_path: Path) -> None:
    spool = RowSpool(tmp_path / "rows.spool")
    rows = [
        {"input_ids": list(range(at)), "labels": [-100] * at, "kind": "file", "name": f"{at}.py", "part": at,
         "source_tokens": at, "messages": "", "origin": ""}
        for at in range(4)
    ]  # fmt: skip
    for row in rows:
        spool.append(row)
    assert [spool.read(at) for at in (2, 0, 3, 1)] == [rows[at] for at in (2, 0, 3, 1)]
    spool.close()
    assert list(tmp_path.iterdir()) == []
