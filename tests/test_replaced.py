"""What is replaced is kept, with its metadata, at the moment when its successor is published."""

import errno
import itertools
import json
import os
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from core.multi_gpu_image_generator import MultiGPUImageGenerator
from core.store.provenance import read_provenance
from tests.both_engines import ON_BOTH
from tests.conftest import Project, found_below, simulated, wait_until
from tests.edit_world import Bench, pair
from tests.fault_tickets import fault_environment
from tests.inline_command import InlineCommand, prompts, rows, steps_of

COUNT = 2  # pictures of the runs that die: one in a folder below, and one not
# Of one replacement, and of the tables; fsync and commit come before and after each.
POINTS = [
    *(f"main.{when}-{what}" for when in ("before", "after") for what in ("keep", "rename")),
    *("main.before-fsync", "main.before-commit", "main.mid-write"),
]
MANY = 200  # pictures: more than are there by the time that a test has looked
SLOW = {"seconds_per_megapixel_step": 10.0}


@pytest.fixture
def command(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> InlineCommand:
    return InlineCommand(tmp_path, capfd)


def tweets(count: int, word: str = "picture", **fields: Any) -> list[dict[str, Any]]:
    names = [f"{'sub/' * (i % 2)}{i}.png" for i in range(count)]
    return [{"prompt": f"{word} {i}", "output_path": n, **fields} for i, n in enumerate(names)]


def kept(folder: Path) -> dict[str, Path]:
    """Replaced pictures and verdicts by the name that they had; of one batch."""
    batches = sorted((folder / ".replaced").glob("*"))
    assert len(batches) == 1, batches
    return kept_in(batches[0])


def kept_in(batch: Path) -> dict[str, Path]:
    return {
        str(file.relative_to(batch)): file
        for file in sorted(batch.rglob("*"))
        if file.suffix == ".png" or (file.suffix == ".json" and file.parent != batch)
    }


def test_changed_pictures_are_kept_with_their_metadata(command: InlineCommand) -> None:
    file = command.write("tweets.json", tweets(3))
    command.plan(file)
    folder = command.out / "tweets"
    before = {name: (folder / name).read_bytes() for name in prompts(folder)}
    command.plan(file, defaults={"num_inference_steps": 4})
    old = kept(folder)
    assert {name: picture.read_bytes() for name, picture in old.items()} == before
    assert [steps_of(folder / name) for name in before] == [4] * 3
    table = {row["file_name"]: row for row in rows(old["0.png"].parent / "metadata.jsonl")}
    assert table.keys() == before.keys()
    for name, row in table.items():
        made = read_provenance(old[name])
        assert (row["prompt"], row["fingerprint"]) == (made["task"]["prompt"], made["fingerprint"])
        assert json.loads(row["task"]) == made["task"] and json.loads(row["used"]) == made["used"]
    assert len({tuple(row) for row in table.values()}) == 1, "a dataset: the same columns"


def test_unchanged_and_new_ones_are_not_kept(command: InlineCommand) -> None:
    content = tweets(3)
    file = command.write("tweets.json", content)
    command.plan(file)
    content[1]["prompt"] = "changed"
    command.write("tweets.json", [*content, *tweets(5)[3:]])
    command.plan(file)
    assert list(kept(command.out / "tweets")) == ["sub/1.png"]


def test_with_overwrite_nothing_is_kept(command: InlineCommand) -> None:
    file = command.write("tweets.json", tweets(2))
    command.plan(file)
    command.plan(file, "--overwrite", defaults={"num_inference_steps": 4})
    assert not (command.out / "tweets" / ".replaced").exists()


def test_two_batches_within_a_second_do_not_share_a_folder(tmp_path: Path) -> None:
    with MultiGPUImageGenerator(1, config=simulated(), output_dir=tmp_path) as generator:
        for word in ("a", "b", "c"):
            generator.generate_batch(tweets(2, word))
    batches = [
        {steps: read_provenance(file)["task"]["prompt"] for steps, file in kept_in(b).items()}
        for b in sorted((tmp_path / ".replaced").iterdir())
    ]
    assert batches == [{"0.png": f"{w} 0", "sub/1.png": f"{w} 1"} for w in ("a", "b")]


def test_tables_and_a_lost_ledger_pass_over_what_is_kept(command: InlineCommand) -> None:
    file = command.write("tweets.json", tweets(3))
    command.plan(file)
    command.plan(file, defaults={"num_inference_steps": 4})
    folder = command.out / "tweets"
    (folder / "ledger.sqlite").unlink()
    assert command.plan(file, defaults={"num_inference_steps": 4}) == "3 unchanged."
    table = rows(folder / "metadata.jsonl")
    assert sorted(row["file_name"] for row in table) == ["0.png", "2.png", "sub/1.png"]
    assert len(kept(folder)) == 3


def test_datasets_sees_what_is_current_and_nothing_else(command: InlineCommand) -> None:
    from datasets import load_dataset

    command.plan(command.write("tweets.json", tweets(4)))
    command.plan(command.write("tweets.json", tweets(4, "other")))
    folder = command.out / "tweets"
    cache = str(command.folder / "cache")
    found = load_dataset("imagefolder", data_dir=str(folder), split="train", cache_dir=cache)
    assert sorted(found["prompt"]) == [f"other {i}" for i in range(4)]
    old = next((folder / ".replaced").iterdir())
    before = load_dataset("imagefolder", data_dir=str(old), split="train", cache_dir=cache)
    assert sorted(before["prompt"]) == [f"picture {i}" for i in range(4)]


@pytest.mark.parametrize("name", ["test_tubes.png", "dev/a.png"])
def test_words_for_splits_hide_nothing_that_is_kept(command: InlineCommand, name: str) -> None:
    from datasets import load_dataset

    content = [*tweets(2), {"prompt": "picture 2", "output_path": name}]
    file = command.write("tweets.json", content)
    command.plan(file)
    command.plan(file, defaults={"num_inference_steps": 4})
    old = str(next((command.out / "tweets" / ".replaced").iterdir()))
    cache = str(command.folder / "cache")
    for found in (
        load_dataset("imagefolder", data_dir=old, cache_dir=cache),
        load_dataset(old, cache_dir=cache),
    ):
        assert list(found) == ["train"]
        assert sorted(found["train"]["prompt"]) == [f"picture {i}" for i in range(3)]


@pytest.mark.parametrize("name", [".replaced/x.png", "a/.replaced/x.png", ".Replaced/x.png"])
def test_no_picture_may_be_named_into_the_folder(command: InlineCommand, name: str) -> None:
    file = command.write("tweets.json", [{"prompt": "a", "output_path": name}])
    code, errors = command.run(file)
    assert code == 1 and "is kept for results that were replaced" in errors


def test_a_link_does_not_lead_what_is_kept_outside(command: InlineCommand) -> None:
    file = command.write("tweets.json", tweets(1))
    command.plan(file)
    outside = command.folder / "outside"
    outside.mkdir()
    (command.out / "tweets" / ".replaced").symlink_to(outside)
    code, errors = command.run(file, defaults={"num_inference_steps": 4})
    assert code == 1 and "has come to lead out of" in errors
    assert not list(outside.iterdir())
    assert steps_of(command.out / "tweets" / "0.png") is None


def no_links(source: Any, target: Any, **_: Any) -> None:
    raise OSError(errno.EPERM, os.strerror(errno.EPERM))


def test_without_hard_links_it_is_a_copy(
    command: InlineCommand, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(os, "link", no_links)
    file = command.write("tweets.json", tweets(3))
    command.plan(file)
    before = {name: (command.out / "tweets" / name).read_bytes() for name in ("0.png", "sub/1.png")}
    command.plan(file, defaults={"num_inference_steps": 4})
    old = kept(command.out / "tweets")
    assert {name: old[name].read_bytes() for name in before} == before
    assert not list(command.out.rglob(".partial*"))


def refuse(number: int, where: str) -> Callable[..., None]:
    def refused(*arguments: Any, **_: Any) -> None:
        if where in str(arguments[-1]):
            raise OSError(number, os.strerror(number))
        originals[where](*arguments)

    originals = {".replaced": os.link, "0.png": os.replace}
    return refused


@pytest.mark.parametrize(("function", "where"), [("link", ".replaced"), ("replace", "0.png")])
@pytest.mark.parametrize("number", [errno.ENOSPC, errno.EIO])
def test_a_full_disk_at_the_move_loses_nothing(
    command: InlineCommand, monkeypatch: pytest.MonkeyPatch, function: str, where: str, number: int
) -> None:
    file = command.write("tweets.json", tweets(1))
    command.plan(file)
    with monkeypatch.context() as patch:
        patch.setattr(os, function, refuse(number, where))
        code, errors = command.run(file, defaults={"num_inference_steps": 4})
    assert code == 1 and os.strerror(number) in errors and "Traceback" not in errors
    folder = command.out / "tweets"
    assert steps_of(folder / "0.png") is None
    assert not list(folder.rglob(".partial*")) and not (folder / ".replaced").exists()
    [row] = rows(folder / "metadata.jsonl")
    assert row["num_inference_steps"] == 1, "the table says what lies there"
    command.plan(file, defaults={"num_inference_steps": 4})
    assert steps_of(folder / "0.png") == 4 and list(kept(folder)) == ["0.png"]


@ON_BOTH
def test_a_failed_redraw_leaves_the_old_picture_and_its_line(project: Project) -> None:
    project.run([project.write_tweets(tweets(2))])
    content = [tweets(1)[0], {**tweets(2)[1], "prompt": "!nan"}]
    run = project.run([project.write_tweets(content)])
    assert run.process.returncode == 1
    assert [r["status"] for r in project.records()] == ["skipped", "failed"]
    assert project.records()[1]["output_path"] is None
    for _ in range(2):  # it says so until it succeeds, also where it is not asked for
        assert prompts(project.pictures)["sub/1.png"] == "picture 1"
        assert not (project.pictures / ".replaced").exists()
        table = {r["file_name"]: r for r in rows(project.pictures / "metadata.jsonl")}
        assert table.keys() == {"0.png", "sub/1.png"}
        assert table["sub/1.png"]["prompt"] == "picture 1"
        project.run([project.write_tweets(content), "--limit", "1"])
    run = project.run([project.write_tweets(tweets(2))])  # as it was before
    assert run.output.splitlines()[0] == "2 tweets: 2 skipped"


@ON_BOTH
def test_pictures_wait_for_their_successors(project: Project) -> None:
    """An interrupt between two pictures finds each old one under its name or kept."""
    settings = simulated(simulated=SLOW, defaults={"width": 128, "height": 128})
    file = project.write_tweets(tweets(MANY))
    project.run([file], simulated(defaults={"width": 128, "height": 128}))
    project.write_tweets(tweets(MANY, "other"))
    run = project.start([file], settings)
    wait_until(lambda: found_below(project.pictures / ".replaced", "*.png"), "a replaced picture")
    run.interrupt()
    assert run.finish() == 130
    there, old = prompts(project.pictures), kept(project.pictures)
    done = {name for name, prompt in there.items() if prompt.startswith("other")}
    assert len(there) == MANY and 0 < len(done) < MANY and old.keys() == done
    table = {row["file_name"]: row["prompt"] for row in rows(project.pictures / "metadata.jsonl")}
    assert table == there
    assert len(rows(old["0.png"].parent / "metadata.jsonl")) == len(done)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("point", "links"),
    [*((point, True) for point in POINTS), ("main.before-keep", False), ("main.after-keep", False)],
)
def test_a_death_anywhere_leaves_the_old_or_the_new(
    command: InlineCommand, monkeypatch: pytest.MonkeyPatch, point: str, links: bool
) -> None:
    """At every passage of the point, until a run passes it less often."""
    if not links:
        monkeypatch.setattr(os, "link", no_links)
    file = command.write("tweets.json", tweets(COUNT))
    command.plan(file)
    finished = command.out.rename(command.folder / "finished")
    command.write("tweets.json", tweets(COUNT, "other"))
    folder = command.out / "tweets"
    for passage in itertools.count(1):
        shutil.copytree(finished, command.out)
        if not command.run_until(point, passage, file):
            break
        assert len(prompts(folder)) == COUNT, "there is a whole picture under every name"
        command.plan(file)
        judge_replacement(folder)
        shutil.rmtree(command.out)
    assert passage > 1, "the point is never passed"
    judge_replacement(folder)


def judge_replacement(folder: Path) -> None:
    """All new pictures, and all old ones, each with one line."""
    assert set(prompts(folder).values()) == {f"other {i}" for i in range(COUNT)}
    batches = sorted((folder / ".replaced").iterdir())
    old = [read_provenance(f)["task"]["prompt"] for b in batches for f in kept_in(b).values()]
    assert sorted(old) == [f"picture {i}" for i in range(COUNT)], "each is kept once"
    told = [row["prompt"] for b in batches for row in rows(b / "metadata.jsonl")]
    assert sorted(told) == sorted(old)
    assert not list(folder.rglob(".partial*"))
    assert len(rows(folder / "metadata.jsonl")) == len(rows(folder / "results.jsonl")) == COUNT


@ON_BOTH
def test_edits_are_kept_with_their_verdicts(project: Project) -> None:
    bench = Bench(project)
    bench.write_pairs([pair(i, category=["sky", "ground"][i % 2]) for i in range(4)])
    bench.run()
    bench.run(judge={"prompts": "yes_no.yaml"})
    before = {
        str(file.relative_to(bench.results)): file.read_bytes()
        for file in [*bench.edits(), *bench.verdicts()]
    }
    other = {name for name in before if "yes-no" in name}
    run = bench.run(editor={"defaults": {"num_inference_steps": 4}})
    assert run.process.returncode == 0, run.errors
    old = kept(bench.results)
    assert old.keys() == before.keys() - other, "another judge's verdicts have no successor yet"
    assert {name: file.read_bytes() for name, file in old.items()} == {
        name: before[name] for name in old
    }
    [folder] = (bench.results / ".replaced").iterdir()
    edits, verdicts = rows(folder / "metadata.jsonl"), rows(folder / "results.jsonl")
    assert {row["file_name"] for row in [*edits, *verdicts]} == old.keys()
    assert all(row["scores"].keys() == {"SC", "PQ", "O"} for row in verdicts)
    assert bench.summary()["rank_correlations"] == {}, "they are of other pictures"
    assert bench.outcomes() == ["scored"] * 4
    run = bench.run(editor={"defaults": {"num_inference_steps": 4}})
    assert "Plan for" not in run.errors and len(kept(bench.results)) == 8


@ON_BOTH
def test_overwritten_edits_are_not_kept(project: Project) -> None:
    bench = Bench(project)
    bench.write_pairs([pair(0)])
    bench.run()
    bench.run("--overwrite", editor={"defaults": {"num_inference_steps": 4}})
    assert not (bench.results / ".replaced").exists()


@ON_BOTH
@pytest.mark.parametrize("passage", [1, 3])  # of an edit, of a verdict
def test_a_benchmark_killed_while_it_replaces_goes_on(project: Project, passage: int) -> None:
    bench = Bench(project)
    bench.write_pairs([pair(i) for i in range(2)])
    bench.run()
    tickets = project.folder / "tickets"
    project.environment |= fault_environment(tickets, f"main.after-keep:{passage}", 1)
    run = bench.run(editor={"defaults": {"num_inference_steps": 4}})
    assert run.process.returncode == -9 and not list(tickets.iterdir())
    run = bench.run(editor={"defaults": {"num_inference_steps": 4}})
    assert run.process.returncode == 0, run.errors
    assert bench.outcomes() == ["scored"] * 2
    old = [name for b in (bench.results / ".replaced").iterdir() for name in kept_in(b)]
    assert len(old) == len(set(old)) == 4
    assert bench.leftovers() == []
