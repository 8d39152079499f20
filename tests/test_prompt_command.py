"""The tweets command with prompts of all forms, from its arguments to its records."""

import re
import shlex
from pathlib import Path

import pytest

from apps.tweets.command import main
from apps.tweets.options import EXAMPLES, check_source, parse_arguments
from core.store.provenance import read_provenance
from tests.folder_command import FolderCommand
from tests.inline_command import rows


class Command(FolderCommand):
    """The command in a folder of its own, on a simulated device in this process."""

    main = staticmethod(main)

    def pictures(self, name: str) -> list[str]:
        folder = self.folder / "outputs" / name
        return sorted(f.name for f in folder.iterdir() if f.suffix in (".png", ".webp", ".jpg"))


@pytest.fixture
def command(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> Command:
    monkeypatch.chdir(tmp_path)
    return Command(tmp_path, capfd)


def test_a_prompt_of_the_command_line_is_drawn_and_others_leave_it_alone(command: Command) -> None:
    assert command.run("--prompt", "a red house", "--prompt", "a boat", "1")[0] == 0
    assert command.pictures("drawn") == ["a_boat.png", "a_red_house.png"]
    code, said = command.run("--prompt", "a boat", "--prompt", "a cat", "1")
    assert code == 0 and "Plan: 1 new, 1 unchanged." in said
    assert command.pictures("drawn") == ["a_boat.png", "a_cat.png", "a_red_house.png"]


def test_prompts_of_the_command_line_and_a_file_prompts_never_share_a_folder(
    command: Command,
) -> None:
    typed = ("--prompt", "a red house", "1")
    (command.folder / "prompts.txt").write_text("a boat\n", "utf-8")
    for _ in range(2):  # whichever comes first, and again
        assert command.run("prompts.txt", "1")[0] == command.run(*typed)[0] == 0
    assert "1 unchanged" in command.run("prompts.txt", "1")[1]
    assert "1 unchanged" in command.run(*typed)[1]
    assert command.pictures("prompts") == ["prompts_00.png"]
    assert command.pictures("drawn") == ["a_red_house.png"]
    code, said = command.run(*typed, "--name", "prompts")
    assert (
        code == 2 and "not of prompts of the command line." in said and "--name prompts_2" in said
    )
    (command.folder / "drawn.txt").write_text("a boat\n", "utf-8")
    code, said = command.run("drawn.txt", "1")
    assert code == 2 and "holds the results of prompts of the command line, not of" in said
    assert command.pictures("drawn") == ["a_red_house.png"]


def test_prompts_that_an_earlier_version_drew_into_the_folder_prompts_go_on_there(
    command: Command, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HOME", str(command.folder))
    typed = ("--prompt", "a red house", "1", "--output-dir", "~/outputs")  # as in settings
    assert command.run(*typed, "--name", "prompts")[0] == 0
    (command.folder / "outputs" / "prompts" / ".input.json").unlink()  # it wrote none
    for _ in range(2):
        code, said = command.run(*typed)
        assert code == 0 and "1 unchanged" in said
    assert not (command.folder / "outputs" / "drawn").exists()
    (command.folder / "prompts.txt").write_text("a boat\n", "utf-8")
    assert command.run("prompts.txt", "1")[0] == 2
    assert command.run("prompts.txt", "1", "--overwrite")[0] == 0  # which takes the folder over
    assert command.run(*typed)[0] == 0 and command.pictures("drawn") == ["a_red_house.png"]


@pytest.mark.parametrize(
    ("line", "hint"),
    [
        (["p.txt", "--gird", "cfg=1,3"], "unrecognized arguments: --gird cfg=1,3; did you mean"),
        (["p.txt", "--xyz"], "unrecognized arguments: --xyz; "),
        (["p.txt", "--quit"], "unrecognized arguments: --quit; did you mean --quiet?"),
        (["p.txt", "--x\ny"], "unrecognized arguments: --x\\ny; "),
        (["p.txt", "--limit"], "argument --limit: expected one argument; "),
    ],
)
def test_a_wrong_option_is_told_in_one_line(
    line: list[str], hint: str, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit) as ended:
        parse_arguments(line)
    said = capsys.readouterr().err
    assert ended.value.code == 2 and said.count("\n") == 1
    assert hint in said
    assert any(end in said for end in ("--grid?", "--quiet?", "--help lists all options."))


@pytest.mark.parametrize(
    "arguments",
    [
        ["p.txt", "2", "--limit", "1"],
        ["p.txt", "--limit", "1", "2"],
        ["--limit", "1", "p.txt", "2"],
        ["--prompt", "a", "2"],
        ["2", "--prompt", "a"],
        ["--from-png", "a.png", "b.png", "2"],
    ],
)
def test_the_number_of_gpus_may_stand_anywhere(arguments: list[str]) -> None:
    options = parse_arguments(arguments)
    assert options.num_gpus == 2
    assert str(options.tweets) == ("p.txt" if "p.txt" in arguments else "None")


def test_every_example_of_the_help_is_understood() -> None:
    lines = [line.strip() for line in EXAMPLES.splitlines() if line.strip().startswith("python ")]
    assert len(lines) > 5
    for line in lines:
        check_source(parse_arguments(shlex.split(line)[2:]))


def test_every_option_is_explained_in_a_group(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        parse_arguments(["--help"])
    usage, *groups = re.split(r"\n\n(?=[a-z ().,]+:\n)", capsys.readouterr().out)
    options = set(re.findall(r"--[a-z-]+", usage))
    explained = set(re.findall(r"^  (?:-h, )?(--[a-z-]+)", "\n".join(groups), re.MULTILINE))
    assert options - explained <= {"--help"} and len(groups) >= 6


def test_a_grid_of_seeds_and_settings_is_drawn_whole_and_resumed(command: Command) -> None:
    (command.folder / "p.txt").write_text("a {red|blue} house\na boat\n")
    line = ["p.txt", "1", "--seeds", "0-1", "--grid", "cfg=1,2", "--alternatives"]
    code, said = command.run(*line)
    assert code == 0 and "12 prompts: 12 done" in said
    assert "p_00_red_seed0_cfg2.png" in command.pictures("p")
    ids = [record["task_id"] for record in command.records("p")]
    assert len(set(ids)) == 12 and ids[:2] == ["p_00_red_seed0_cfg1", "p_00_red_seed0_cfg2"]
    assert "12 prompts: 12 skipped" in command.run(*line)[1]


def test_a_bad_value_of_a_table_names_file_row_line_field_and_value(command: Command) -> None:
    (command.folder / "p.csv").write_text("prompt,width\na,64\nb,wide\n")
    code, said = command.run("p.csv", "1")
    assert code == 1 and "2 prompts: 1 done, 1 failed" in said
    [error] = [record["error"] for record in command.records("p") if not record["success"]]
    assert error.startswith("p.csv: row 2 (line 3): width: ") and "'wide'" in error


def test_pictures_have_the_format_and_quality_that_are_asked_for(command: Command) -> None:
    line = ["--prompt", "a", "1", "--format", "jpg"]
    assert command.run(*line)[0] == 0 and command.pictures("drawn") == ["a.jpg"]
    file = command.folder / "outputs" / "drawn" / "a.jpg"
    assert read_provenance(file)["task"]["picture_quality"] == 95
    assert "Plan: 1 unchanged." in command.run(*line, "--quality", "95")[1]
    said = command.run(*line, "--quality", "60")[1]
    assert "Plan: 1 changed (quality of the file 95 -> 60)." in said
    (file.parent / "ledger.sqlite").unlink()
    assert "Plan: 1 unchanged." in command.run(*line, "--quality", "60")[1]
    [row] = rows(file.parent / "metadata.jsonl")
    assert (row["file_name"], row["prompt"]) == ("a.jpg", "a")


@pytest.mark.parametrize(
    ("arguments", "reason"),
    [
        (["p.txt", "--quality", "80"], "--quality: PNG is lossless; use it with --format jpeg"),
        ([], 'Give a file of prompts, --prompt "…", or pictures with --from-png'),
        (["p.txt", "--prompt", "a"], "Give either a file of prompts (p.txt) or --prompt"),
        (["p.txt", "--grid", "stepps=1"], "did you mean 'steps'?"),
        (["p.txt", "--seeds", "x"], "--seeds: expected seeds like 0-9"),
        (["p.txt", "--seeds", "0-1", "--grid", "seed=1,2"], "are one setting: give one"),
        (["p.txt", "--lora", "a", "--set", "lora=b"], "are one setting: give one"),
        (["batch.jsonl", "--seeds", "0-1"], "--seeds: requests of a batch file say all of it"),
    ],
)
def test_arguments_that_do_not_go_together_are_one_line(
    command: Command, arguments: list[str], reason: str
) -> None:
    (command.folder / "p.txt").write_text("a\n")
    request = '{"custom_id": "a", "url": "/v1/images/generations", "body": {"prompt": "a"}}\n'
    (command.folder / "batch.jsonl").write_text(request)
    code, said = command.run(*arguments)
    assert code == 2 and reason in said and said.count("\n") == 1


FIVE = (
    '[{"prompt": "a"}, {"prompt": "!error b"}, {"prompt": "c", "lora": "no.safetensors"}, "d", 7]'
)


def test_only_what_failed_is_tried_again_with_the_seeds_of_its_places(command: Command) -> None:
    (command.folder / "t.json").write_text(FIVE)
    assert command.run("t.json", "1", supervision={"max_attempts": 1})[0] == 1
    (command.folder / "t.json").write_text(FIVE.replace("!error b", "b").replace("7]", '"e"]'))
    code, said = command.run("t.json", "1", "--only-failed")
    assert code == 1 and "3 tweets: 2 done, 1 failed" in said
    assert [(r["task_id"], r["seed"]) for r in command.records("t")][::2] == [
        ("t_01", 43), ("t_04", 46)
    ]  # fmt: skip
    assert "1 tweet: 1 failed" in command.run("t.json", "1", "--only-failed")[1]
    assert "5 tweets: 1 failed, 4 skipped" in command.run("t.json", "1")[1]


def test_pictures_are_chosen_by_id_and_by_their_records(command: Command) -> None:
    (command.folder / "p.txt").write_text("a house\na boat\na cat\n")
    code, said = command.run("p.txt", "1", "--only", "p_02", "p_00")
    assert code == 0 and [r["task_id"] for r in command.records("p")] == ["p_00", "p_02"]
    assert [r["seed"] for r in command.records("p")] == [42, 44]
    assert "1 prompt: 1 done" in command.run("p.txt", "1", "--where", "status=new")[1]
    line = ["p.txt", "1", "--where", "prompt~house", "--where", "seed=42", "--overwrite"]
    assert "1 prompt: 1 done" in command.run(*line)[1]
    code, said = command.run("p.txt", "1", "--where", "status=failed")
    assert code == 0 and "Nothing is drawn: no prompt fits." in said
    assert len(rows(command.folder / "outputs" / "p" / "metadata.jsonl")) == 3
    assert "3 prompts: 3 skipped" in command.run("p.txt", "1")[1]


@pytest.mark.parametrize("line", ["p.txt --num-gpus 2", "--prompt x --num-gpus 2", "p.txt 2"])
def test_the_number_of_gpus_is_given_by_name_or_by_place(line: str) -> None:
    assert parse_arguments(line.split()).num_gpus == 2


@pytest.mark.parametrize(
    ("line", "reason"),
    [
        ("p.txt 2 --num-gpus 2", "give either NUM_GPUS or --num-gpus, not both"),
        ("--prompt x 1 --num-gpus 2", "give either NUM_GPUS or --num-gpus, not both"),
        ("p.txt --num-gpus 0", "--num-gpus: expected a number of 1 or more, found '0'"),
        ("p.txt --num-gpus 1 --gpu-ids 0", "Give either --num-gpus or --gpu-ids, not both"),
    ],
)
def test_two_numbers_of_gpus_are_refused(command: Command, line: str, reason: str) -> None:
    (command.folder / "p.txt").write_text("a\n")
    code, said = command.run(*line.split())
    assert code == 2 and reason in said


def test_pictures_are_called_by_a_pattern(command: Command) -> None:
    (command.folder / "p.csv").write_text("prompt,seed,mood\nA house!,7,calm\na boat,,\n")
    pattern = "{mood}/{index:03}_{prompt}_{seed}_{lora}"
    assert command.run("p.csv", "1", "--picture-name", pattern)[0] == 0
    found = [Path(r["output_path"]).relative_to(command.folder / "outputs/p").as_posix()
             for r in command.records("p")]  # fmt: skip
    assert found == ["calm/000_A_house_7_none.png", "none/001_a_boat_43_none.png"]


@pytest.mark.parametrize(
    ("arguments", "code", "reason"),
    [
        (["--only", "p_0"], 2, "--only: nothing here is called 'p_0'; did you mean p_0"),
        (["--where", "x"], 2, "--where: expected FIELD=VALUE"),
        (["--picture-name", "x"], 2, "names all pictures alike; use a field in it: {id}"),
        (["--picture-name", "{prompt.upper}"], 2, "expected a field like {prompt}"),
        (["--picture-name", "{prompt!r}"], 2, "expected a field like {prompt}"),
        (["--picture-name", "{id:>999999999}"], 2, "expected a width like {index:04}"),
        (["--picture-name", "{id"], 2, "--picture-name {id: "),
        (["--picture-name", "../{id}"], 1, "leads outside with '..'"),
        (["--picture-name", "{lora}", "--limit", "2"], 1, "is also the output of task 0"),
        (["--picture-name", "{seed}", "--seed", "-1"], 1, "a random seed is not known before"),
    ],
)
def test_a_choice_or_a_name_that_cannot_be_is_one_line(
    command: Command, arguments: list[str], code: int, reason: str
) -> None:
    (command.folder / "p.txt").write_text("a\nb\n")
    found, said = command.run("p.txt", "1", *arguments)
    assert found == code and reason in said
    assert code == 1 or said.count("\n") == 1


@pytest.mark.parametrize("empty", ["", "  "])
def test_an_empty_prompt_is_refused_before_anything_is_made(command: Command, empty: str) -> None:
    code, said = command.run("--prompt", "a house", "--prompt", empty, "1")
    assert code == 2 and "--prompt: is empty; write what to draw" in said
    assert not (command.folder / "outputs").exists()
