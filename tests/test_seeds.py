"""Seeds: the largest, those of other programs' spelling, and random ones that a rerun keeps."""

import json
from argparse import ArgumentTypeError
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from apps.arguments import seed as seed_argument
from apps.edit_benchmark.settings import load_benchmark_settings
from core.errors import InputError
from core.multi_gpu_image_generator import MultiGPUImageGenerator
from core.seeds import MAX_SEED, read_seed
from core.settings import load_settings
from core.store.dataset_folder import MAX_NUMBER
from core.tasks import Result
from tests.conftest import Project, simulated, wait_until

SLOW = simulated(simulated={"seconds_per_megapixel_step": 10.0})
RANDOM_TWEETS = [{"prompt": f"picture {i}", "width": 128, "height": 128} for i in range(3)]


def seeds(project: Project) -> list[int]:
    """Of the newest run's records."""
    return [int(str(r["seed"])) for r in project.records()]


def seeds_of(results: list[Result]) -> list[int]:
    return [result.seed for result in results if result.seed is not None]


def said_by_pictures(project: Project) -> list[int]:
    """The seeds that pictures name in the text that other programs read."""
    texts = [Image.open(p).info["parameters"] for p in sorted(project.pictures.glob("*.png"))]
    return [int(text.partition("Seed: ")[2].partition(",")[0]) for text in texts]


SPELLINGS = [-1, "-1", -1.0, "random", "Random "]


def test_a_random_seed_is_recorded_and_a_rerun_keeps_it(project: Project) -> None:
    file = project.write_tweets([{**RANDOM_TWEETS[0], "seed": s} for s in SPELLINGS])
    assert project.run([file]).output.startswith("5 tweets: 5 done")
    chosen = seeds(project)
    rows = [json.loads(x) for x in (project.pictures / "metadata.jsonl").read_text().splitlines()]
    assert len(set(chosen)) == 5 and min(chosen) >= 0
    assert said_by_pictures(project) == [row["seed"] for row in rows] == chosen
    assert project.run([file]).output.startswith("5 tweets: 5 skipped")
    assert seeds(project) == chosen


def test_pictures_say_their_random_seeds_where_the_ledger_is_lost(project: Project) -> None:
    file = project.write_tweets([{**tweet, "seed": -1} for tweet in RANDOM_TWEETS])
    project.run([file])
    chosen = seeds(project)
    for lost in (["ledger.sqlite"], ["ledger.sqlite", "ledger.lock"]):
        for name in lost:
            (project.pictures / name).unlink()
        assert project.run([file]).output.startswith("3 tweets: 3 skipped"), lost
        assert seeds(project) == chosen


def test_a_killed_run_goes_on_with_the_seeds_that_it_chose(project: Project) -> None:
    file = project.write_tweets([{**RANDOM_TWEETS[0], "seed": -1}] * 12)
    run = project.start([file, 2], SLOW)
    wait_until(lambda: len(list(project.pictures.glob("*.png"))) >= 2, "pictures")
    run.process.kill()
    run.finish()
    before = said_by_pictures(project)
    planned = project.run([file, "--limit", 4], SLOW)
    assert planned.process.returncode == 0
    first = seeds(project)
    assert project.run([file, 2], SLOW).process.returncode == 0
    assert seeds(project)[:4] == first and set(before) <= set(seeds(project))
    assert said_by_pictures(project) == seeds(project)


def test_what_is_overwritten_gets_a_new_random_seed(project: Project) -> None:
    file = project.write_tweets([{**tweet, "seed": -1} for tweet in RANDOM_TWEETS])
    project.run([file])
    chosen = seeds(project)
    assert project.run([file, "--overwrite"]).output.startswith("3 tweets: 3 done")
    assert not set(chosen) & set(seeds(project))
    chosen = seeds(project)
    assert project.run([file]).output.startswith("3 tweets: 3 skipped")
    assert seeds(project) == chosen


def test_random_for_the_whole_run_is_random_for_every_tweet_without_a_seed(
    project: Project,
) -> None:
    file = project.write_tweets([*RANDOM_TWEETS, {"prompt": "fixed", "seed": 7}])
    assert project.run([file, "--seed", "-1"]).output.startswith("4 tweets: 4 done")
    chosen = seeds(project)
    assert len(set(chosen)) == 4 and chosen[3] == 7 and chosen[0] != 42
    assert project.run([file, "--seed", "random"]).output.startswith("4 tweets: 4 skipped")
    assert seeds(project) == chosen


def test_a_seed_that_was_asked_for_is_not_a_random_one(project: Project) -> None:
    tweet = {**RANDOM_TWEETS[0], "seed": 7}
    project.run([project.write_tweets([tweet])])
    run = project.run([project.write_tweets([{**tweet, "seed": -1}])])
    assert run.output.startswith("1 tweet: 1 done") and seeds(project) != [7]
    # A random seed may be fixed by writing it down: the picture is the same.
    run = project.run([project.write_tweets([{**tweet, "seed": seeds(project)[0]}])])
    assert run.output.startswith("1 tweet: 1 skipped")


def test_python_tasks_and_settings_may_ask_for_random_seeds(tmp_path: Path) -> None:
    tasks: list[dict[str, Any]] = [
        {"prompt": "a", "seed": -1},
        {"prompt": "b", "seed": "random"},
        {"prompt": "c"},
        {"prompt": "d", "seed": 44},
    ]
    runs = []
    for _ in range(2):
        config = simulated(seed=-1)
        with MultiGPUImageGenerator(1, config=config, output_dir=tmp_path) as generator:
            runs.append(generator.generate_batch(tasks))
    first, second = runs
    assert [r.status for r in first] == ["done"] * 4
    assert [r.status for r in second] == ["skipped"] * 4
    assert [r.seed for r in first] == [r.seed for r in second]
    assert len({r.seed for r in first}) == 4 and first[3].seed == 44 and min(seeds_of(first)) >= 0


def test_a_picture_of_every_seed_up_to_the_largest_is_drawn(
    tmp_path: Path, tiny_model: Path
) -> None:
    config = {"model": str(tiny_model), "device": "cpu", "dtype": "float32"}
    wanted = [7, 2**53 + 5, MAX_NUMBER + 2, MAX_SEED]
    tasks = [{"prompt": "a", "width": 32, "height": 32, "num_inference_steps": 1, "seed": s}
             for s in wanted]  # fmt: skip
    with MultiGPUImageGenerator(1, config=config, output_dir=tmp_path) as generator:
        results = generator.generate_batch(tasks)
    assert [r.error for r in results] == [None] * 4
    assert len({Image.open(str(r.output_path)).tobytes() for r in results}) == 4


def test_seeds_of_any_size_load_as_a_dataset(tmp_path: Path) -> None:
    from datasets import load_dataset

    wanted = [[5, 2**53 + 1], [MAX_SEED, 6], [7]]
    config = simulated()
    with MultiGPUImageGenerator(1, config=config, output_dir=tmp_path / "out") as generator:
        for number, some in enumerate(wanted):
            generator.generate_batch([{"prompt": "a", "seed": s} for s in some])
            data = load_dataset(
                "imagefolder",
                data_dir=str(tmp_path / "out"),
                split="train",
                cache_dir=str(tmp_path / f"cache{number}"),
            )
            so_far = [s for part in wanted[: number + 1] for s in part]
            # Arrow has no integer for the largest: all are text then, and none is rounded.
            expected = so_far if number == 0 else list(map(str, so_far))
            assert sorted(data["seed"], key=int) == sorted(expected, key=int)


@pytest.mark.parametrize(
    ("given", "seed"),
    [(42.0, 42), ("42", 42), (" 42 ", 42), ("42.0", 42), (MAX_SEED, MAX_SEED), (0, 0),
     (str(MAX_SEED), MAX_SEED), ("-1", -1), ("RANDOM", -1)],
)  # fmt: skip
def test_a_seed_may_be_written_as_a_float_or_a_text(given: Any, seed: int) -> None:
    assert read_seed(given) == seed


WORDS = "expected a whole number from 0 to 18446744073709551615, or -1 for a random one"
NO_SEEDS = [-2, MAX_SEED + 1, 1.5, float("nan"), float("inf"), True, "x", "", None, [], "9" * 5000]


@pytest.mark.parametrize("given", NO_SEEDS, ids=lambda v: str(v)[:10])
def test_the_refusal_of_a_seed_says_what_would_be_one(given: Any) -> None:
    with pytest.raises(ValueError) as caught:
        read_seed(given)
    assert str(caught.value) == WORDS


def test_every_way_to_give_a_seed_refuses_in_the_same_words() -> None:
    with pytest.raises(ArgumentTypeError, match=WORDS):
        seed_argument("-2")
    with pytest.raises(InputError, match=f"seed: {WORDS} \\(found -2\\)"):
        load_settings({"seed": -2})


def test_a_benchmark_has_no_random_seed() -> None:
    """Its runs are to be repeated."""
    with pytest.raises(InputError, match=r"0 to 18446744073709551615 \(found -1\)"):
        load_benchmark_settings({"seed": -1})


def test_seeds_count_on_from_zero_past_the_largest(tmp_path: Path) -> None:
    config = simulated(seed=MAX_SEED)
    generator = MultiGPUImageGenerator(1, config=config, output_dir=tmp_path)
    plan = generator.prepare(RANDOM_TWEETS, [])
    generator.stop()
    assert [admitted.task.seed for admitted in plan.tasks] == [MAX_SEED, 0, 1]
