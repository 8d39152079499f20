"""`edit_images.py` from its arguments to its records, on a simulated device in this process."""

import io
import json
import os
import runpy
import shlex
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any, ClassVar

import pytest
from PIL import Image

from apps.edit_images import read_edits
from apps.edit_images.command import main
from apps.edit_images.found_pictures import natural
from apps.edit_images.options import EXAMPLES, check_source, parse_arguments
from core.errors import InputError
from core.store.provenance import read_provenance
from tests.conftest import EDIT_IMAGES, PROJECT, Project, simulated, wait_until, write_safetensors
from tests.folder_command import FolderCommand

NIGHT = ("--instruction", "make it night")


class Command(FolderCommand):
    """The command in a folder of its own."""

    main = staticmethod(main)
    usual: ClassVar[dict[str, Any]] = {
        "model": "simulated", "editor": {"model": "simulated"}, "gallery": False
    }  # fmt: skip

    def picture(self, name: str, size: tuple[int, int] = (16, 16), colour: str = "red") -> Path:
        file = self.folder / name
        file.parent.mkdir(parents=True, exist_ok=True)
        Image.new("RGB", size, colour).save(file)
        return file

    def run(self, *arguments: str, **settings: Any) -> tuple[int, str]:
        return super().run(*arguments, "--num-gpus", "1", **settings)

    def made(self, name: str) -> list[str]:
        """Pictures of a run, by their path in its folder."""
        folder = self.folder / "outputs" / name
        found = (f.relative_to(folder) for f in folder.rglob("*") if f.is_file())
        endings = (".png", ".webp", ".jpg")
        return sorted(str(f) for f in found if f.suffix in endings and not str(f).startswith("."))

    def task(self, path: str) -> dict[str, Any]:
        """What a picture below `outputs` says of its making."""
        found: dict[str, Any] = read_provenance(self.folder / "outputs" / path)["task"]
        return found


@pytest.fixture
def command(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> Command:
    monkeypatch.chdir(tmp_path)
    return Command(tmp_path, capfd)


def names(inputs: Any) -> list[str]:
    return [str(one["output_path"]) for one in inputs]


# -- pictures ----------------------------------------------------------------------


def test_a_picture_is_edited_once_and_another_instruction_leaves_it_alone(command: Command) -> None:
    command.picture("house.png")
    code, said = command.run("house.png", *NIGHT)
    assert code == 0 and "1 edit: 1 done" in said
    assert command.made("edited") == ["house_make_it_night.png"]
    task = command.task("edited/house_make_it_night.png")
    assert (task["instruction"], task["seed"]) == ("make it night", 42)
    assert "1 edit: 1 skipped" in command.run("house.png", *NIGHT)[1]
    assert command.run("house.png", "--instruction", "make it day")[0] == 0
    assert len(command.made("edited")) == 2
    command.picture("house.png", colour="blue")
    assert "1 edit: 1 done" in command.run("house.png", *NIGHT)[1], "its content counts"


def test_a_picture_may_have_any_name_that_a_disk_takes(command: Command) -> None:
    for name in ("new\nline.png", "名 字 😀.png", "-dash.png", "100% [a].png"):
        command.picture(f"photos/{name}")
    code, said = command.run("photos", *NIGHT)
    assert code == 0 and "4 edits: 4 done" in said
    assert "new_line_make_it_night.png" in command.made("photos_edited")


def test_pictures_whose_names_differ_in_a_line_break_alone_are_both_edited(
    command: Command,
) -> None:
    for name in ("a\nb.png", "a_b.png"):
        command.picture(f"photos/{name}")
    code, said = command.run("photos", *NIGHT)
    assert code == 0 and "2 edits: 2 done" in said
    assert len(command.made("photos_edited")) == 2
    assert "2 edits: 2 skipped" in command.run("photos", *NIGHT)[1]


@pytest.mark.parametrize(
    ("header", "row"),
    [("图片,提示词", "a.png,make it night"), ("原图,指令,提示词", "a.png,make it night,a house")],
)
def test_columns_of_edits_may_have_chinese_names(tmp_path: Path, header: str, row: str) -> None:
    (tmp_path / "list.csv").write_text(f"{header}\n{row}\n", "utf-8")
    [edit] = read_edits(tmp_path / "list.csv").inputs
    assert isinstance(edit, Mapping) and edit["instruction"] == "make it night"
    assert edit["source_images"] == [str(tmp_path / "a.png")]


def test_a_picture_whose_name_is_no_text_fails_alone_and_says_what_to_do(command: Command) -> None:
    command.picture(f"photos/{os.fsdecode('房子.png'.encode('gbk'))}")
    command.picture("photos/house.png")
    code, said = command.run("photos", *NIGHT)
    assert code == 1 and "2 edits: 1 done, 1 failed" in said
    assert "its name is not UTF-8 text; rename it. convmv -f GBK" in said
    assert command.made("photos_edited") == ["house_make_it_night.png"]


def test_a_folder_is_searched_through_in_natural_order_without_what_is_hidden(
    command: Command,
) -> None:
    for name in ("p10.png", "p2.png", "p1.jpg", "sub/p3.png", ".gallery/t.png", ".hidden.png"):
        command.picture(f"photos/{name}")
    (command.folder / "photos" / "notes.txt").write_text("not a picture")
    found = read_edits("photos", ["make it night", "make it day"])
    assert names(found.inputs)[::2] == [
        f"{name}_make_it_night.png" for name in ("p1", "p2", "p10", "sub/p3")
    ]
    assert found.name_of_run == "photos_edited" and len(found.inputs) == 8
    assert sorted(["B10", "a2", "b9"], key=natural) == ["a2", "b9", "B10"]


def test_what_a_run_made_is_not_edited_by_the_next_one(command: Command) -> None:
    command.picture("house.png")
    assert command.run(".", *NIGHT, "--name", "all")[0] == 0
    assert "1 edit: 1 skipped" in command.run(".", *NIGHT, "--name", "all")[1]
    assert command.run("outputs/all", *NIGHT, "--name", "again")[0] == 0, "unless it is named"


def test_patterns_and_pictures_that_are_named_twice(command: Command) -> None:
    for name in ("a.png", "b.png", "c.jpg"):
        command.picture(name)
    assert len(read_edits(["*.png", "a.png"], "make it night").inputs) == 2
    assert len(read_edits(["**/*"], "make it night").inputs) == 3
    with pytest.raises(InputError, match=r"no picture fits '\*\.webp'"):
        read_edits("*.webp", "make it night")


def test_pictures_of_one_name_get_two(command: Command) -> None:
    for name in ("a/house.png", "b/house.png"):
        command.picture(name)
    found = read_edits(["a/house.png", "b/house.png"], "make it night").inputs
    assert names(found) == ["house_make_it_night.png", "house_make_it_night_2.png"]


# -- lists -------------------------------------------------------------------------


def test_a_table_has_pictures_beside_it_and_any_field(command: Command) -> None:
    for name in ("data/house.png", "data/tree.png", "data/hat.png"):
        command.picture(name)
    write_safetensors(command.folder / "data" / "ink.safetensors", "ink.lora_A")
    (command.folder / "data" / "edits.csv").write_text(
        "id,image,prompt,seed,steps,size,cfg,lora,category\n"
        "porch,house.png,make it night,7,3,32x48,2,ink.safetensors:0.5,sky\n"
        ",tree.png;hat.png,add the hat,,,,,,\n"
    )
    code, said = command.run("data/edits.csv")
    assert code == 0 and "2 edits: 2 done" in said
    assert command.made("edits") == ["porch.png", "tree_add_the_hat.png"]
    porch, tree = (command.task(f"edits/{name}") for name in command.made("edits"))
    assert (porch["seed"], porch["num_inference_steps"], porch["true_cfg_scale"]) == (7, 3, 2.0)
    assert (porch["width"], porch["height"], porch["lora_strength"]) == (32, 48, 0.5)
    assert porch["metadata"] == {"category": "sky"}
    assert [Path(path).name for path in tree["source_images"]] == ["tree.png", "hat.png"]
    code, said = command.run("data/edits.csv", "--where", "metadata.category=sky", "--overwrite")
    assert "1 edit: 1 done" in said


def test_the_best_name_gives_the_instruction_and_other_texts_are_kept(command: Command) -> None:
    (command.folder / "e.jsonl").write_text(
        '{"image": "a.png", "caption": "a house", "prompt": "make it night"}\n'
        '{"image": "a.png", "caption": "a house", "instruction": "make it day"}\n'
    )
    night, day = read_edits("e.jsonl").inputs
    assert isinstance(night, dict) and isinstance(day, dict)
    assert (night["instruction"], day["instruction"]) == ("make it night", "make it day")
    assert night["metadata"] == day["metadata"] == {"caption": "a house"}


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("e.tsv", "picture\tinstruction\na.png\tmake it night\n"),
        ("e.jsonl", '{"source": "a.png", "edit_instruction": "make it night"}\n'),
        ("e.json", '{"instruction": "make it night", "edits": ["a.png"]}'),
        ("e.json", '[{"pictures": ["a.png"], "instruction": "make it night"}]'),
        ("e.yaml", "a.png: make it night\n"),
        ("e.yaml", "a:\n  picture: a.png\n  instruction: make it night\n"),
        ("e.yaml", "- {input_file_name: a.png, prompt: make it night}\n"),
    ],
)
def test_lists_of_all_forms(command: Command, name: str, text: str) -> None:
    command.picture("a.png")
    (command.folder / name).write_text(text)
    [edit] = read_edits(name).inputs
    assert isinstance(edit, dict)
    assert edit["source_images"] == [str(command.folder / "a.png")]
    assert edit["instruction"] == "make it night"


def test_standard_input_names_pictures(command: Command, monkeypatch: pytest.MonkeyPatch) -> None:
    command.picture("a.png")
    command.picture("b c.png")
    piped = io.TextIOWrapper(io.BytesIO(b"a.png\n\nb c.png\n"))
    monkeypatch.setattr(sys, "stdin", piped)
    code, said = command.run("-", *NIGHT)
    assert code == 0 and "2 edits: 2 done" in said
    assert command.made("stdin") == ["a_make_it_night.png", "b c_make_it_night.png"]


def test_the_example_pairs_are_a_list_of_edits() -> None:
    from core.settings import PROJECT_DIR

    folder = PROJECT_DIR / "examples" / "edit_pairs"
    assert len(read_edits(folder / "metadata.jsonl").inputs) == 50
    with pytest.raises(InputError, match=r"metadata\.jsonl says it, name that file"):
        read_edits(folder)


def test_a_bad_entry_fails_alone_and_says_where_it_stands(command: Command) -> None:
    command.picture("a.png")
    (command.folder / "e.csv").write_text(
        "picture,instruction,steps\na.png,make it night,3\ngone.png,make it day,3\n,none,3\n"
        "a.png,make it winter,0\n"
    )
    code, said = command.run("e.csv")
    assert code == 1 and "4 edits: 1 done, 3 failed" in said
    errors = [str(record["error"]) for record in command.records("e")]
    assert "e.csv: row 2 (line 3): source_images:" in errors[1] and "gone.png" in errors[1]
    assert errors[2] == "e.csv: row 3 (line 4): names no picture."
    assert "row 4 (line 5): num_inference_steps: input should be greater" in errors[3]
    assert (
        "1 edit: 1 failed" in command.run("e.csv", "--only-failed", "--only", "a_make_it_winter")[1]
    )


@pytest.mark.parametrize(
    ("name", "text", "where"),
    [
        ("e.csv", "picture,instruction\na.png,make it night\na.png,\n", "row 2 (line 3)"),
        ("e.json", '[{"picture": "a.png", "edit": "make it night"}, "a.png"]', "entry 2"),
    ],
)
def test_a_row_without_an_instruction_fails_alone(
    command: Command, name: str, text: str, where: str
) -> None:
    command.picture("a.png")
    (command.folder / name).write_text(text)
    code, said = command.run(name)
    assert code == 1 and "2 edits: 1 done, 1 failed" in said
    done, failed = command.records("e")
    assert done["success"] and str(failed["error"]).startswith(f"{name}: {where}: has no instr")
    assert "2 edits: 1 done, 1 skipped" in command.run(name, "--instruction", "make it day")[1]


def test_a_list_without_any_instruction_is_one_error(command: Command) -> None:
    (command.folder / "e.csv").write_text("picture,instruction\na.png,\na.png,\n")
    with pytest.raises(InputError, match=r"e\.csv: row 1 \(line 2\): has no instruction; give"):
        read_edits("e.csv")


# -- what is shown beside it -------------------------------------------------------


def test_references_follow_every_picture(command: Command) -> None:
    for name in ("a.png", "b.png", "hat.png"):
        command.picture(name)
    found = read_edits(["a.png", "b.png"], "add the hat", "hat.png").inputs
    assert [[Path(p).name for p in one["source_images"]] for one in found] == [  # type: ignore[index]
        ["a.png", "hat.png"], ["b.png", "hat.png"],
    ]  # fmt: skip


def test_masks_are_for_all_or_called_like_their_pictures(command: Command) -> None:
    for name in ("p/a.png", "p/sub/b.png", "m/a.png", "m/sub/b.png", "mask.png"):
        command.picture(name, colour="white")
    found = read_edits("p", "make it night", mask="m").inputs
    assert [Path(str(one["mask"])).name for one in found] == ["a.png", "b.png"]  # type: ignore[index]
    code, said = command.run("p", *NIGHT, "--mask", "mask.png")
    assert code == 0 and "2 edits: 2 done" in said
    assert command.task("p_edited/a_make_it_night.png")["mask"].endswith("mask.png")
    command.picture("mask.png", colour="black")
    assert "2 edits: 2 done" in command.run("p", *NIGHT, "--mask", "mask.png")[1], "it counts"
    command.picture("mask.png", size=(32, 16))
    code, said = command.run("p/a.png", *NIGHT, "--mask", "mask.png")
    assert code == 1 and "32 x 16 pixels and the picture 16 x 16; the mask needs" in said
    (command.folder / "m" / "a.png").unlink()
    bad, _ = read_edits("p", "make it night", mask="m").inputs
    assert isinstance(bad, InputError) and "no mask called a" in str(bad)


def test_a_model_without_masks_says_so_before_it_is_loaded(command: Command) -> None:
    for name in ("a.png", "b.png", "mask.png"):
        command.picture(name)
    code, said = command.run(
        "a.png", "b.png", *NIGHT, "--mask", "mask.png", editor={"model": "auto"}, device="cpu"
    )
    assert code == 1 and "2 edits: 2 failed" in said
    assert said.count("mask: The model 'editor' takes no mask: say in the prompt") >= 1


# -- many of one -------------------------------------------------------------------


def test_seeds_grids_settings_and_names(command: Command) -> None:
    command.picture("house.png")
    code, _ = command.run("house.png", *NIGHT, "--seeds", "1-2", "--grid", "cfg=1,3")
    assert code == 0
    assert command.made("edited") == [
        f"house_make_it_night_seed{seed}_cfg{cfg}.png" for seed in (1, 2) for cfg in (1, 3)
    ]
    task = command.task("edited/house_make_it_night_seed2_cfg3.png")
    assert (task["seed"], task["true_cfg_scale"]) == (2, 3.0)
    line = ("house.png", "--instruction", "make it {night|day}", "--alternatives", "--set")
    assert command.run(*line, "steps=3", "--picture-name", "{picture}/{prompt}")[0] == 0
    assert command.task("edited/house/make_it_day.png")["num_inference_steps"] == 3
    assert command.run("house.png", *NIGHT, "--set", "instruction=x", "--name", "other")[0] == 0
    assert command.task("other/house_make_it_night.png")["instruction"] == "x"


def test_formats_and_names(command: Command) -> None:
    command.picture("house.png")
    line = ("house.png", *NIGHT, "--name", "trial", "--format", "jpeg", "--quality", "80")
    assert command.run(*line)[0] == 0
    assert command.made("trial") == ["house_make_it_night.jpg"]


def test_an_edit_is_made_again_from_what_it_says(command: Command) -> None:
    command.picture("house.png")
    assert command.run("house.png", *NIGHT)[0] == 0
    made = "outputs/edited/house_make_it_night.png"
    code, said = command.run("--from-png", made)
    assert code == 0 and "1 the same byte for byte" in said
    assert command.run("--from-png", made, "--seed", "7")[0] == 0
    assert "house_make_it_night_seed7.png" in command.made("edited_again")


# -- plans, refusals, help ---------------------------------------------------------


def test_a_plan_touches_nothing(command: Command) -> None:
    command.picture("house.png")
    code, said = command.run("house.png", *NIGHT, "--dry-run")
    assert code == 0 and "Plan: 1 new" in said
    assert not (command.folder / "outputs").exists()


def test_a_plan_is_of_the_tasks_that_are_chosen(command: Command) -> None:
    for name in ("a.png", "b.png"):
        command.picture(name)
    (command.folder / "bad.png").write_text("no picture")
    line = ("a.png", "b.png", "bad.png", *NIGHT)
    code, said = command.run(*line, "--only", "b_make_it_night", "--dry-run")
    assert code == 0 and "Plan: 1 new" in said
    assert command.run(*line, "--only-failed", "--dry-run")[1].startswith("Nothing is edited")
    assert not (command.folder / "outputs").exists()
    assert command.run(*line)[0] == 1
    before = {f: f.stat().st_mtime_ns for f in (command.folder / "outputs").rglob("*")}
    code, said = command.run(*line, "--only-failed", "--dry-run")
    assert code == 2 and "Plan: 1 unusable" in said
    assert said.endswith("\nThe run would do nothing: mend what is unusable.\n")
    said = command.run(*line, "--dry-run")[1]
    assert "\nThere is nothing else to do: mend what is unusable" in said
    said = command.run(*line, "--overwrite", "--dry-run")[1]
    assert "\nThe run would do the others: mend what is unusable" in said
    code, said = command.run(*line, "--where", "status=done", "--dry-run")
    assert code == 0 and "Plan: 2 unchanged" in said
    assert before == {f: f.stat().st_mtime_ns for f in (command.folder / "outputs").rglob("*")}


@pytest.mark.parametrize("only_looks", [(), ("--dry-run",)])
def test_a_selection_that_cannot_be_done_leaves_no_folder(
    command: Command, only_looks: tuple[str, ...]
) -> None:
    command.picture("a.png")
    code, said = command.run("a.png", *NIGHT, "--only", "foo", *only_looks)
    assert code == 2 and "nothing here is called 'foo'; ids here are like a_make_it_night" in said
    code, said = command.run("a.png", *NIGHT, "--where", "status=failed", *only_looks)
    assert code == 0 and said.endswith("no edit fits.\n")
    assert not (command.folder / "outputs").exists()


def test_events_are_json_lines(command: Command) -> None:
    command.picture("house.png")
    code, said = command.run("house.png", *NIGHT, "--json", "--quiet")
    assert code == 2 and "not allowed with" in said
    code, said = command.run("house.png", *NIGHT, "--json", "--log-level", "ERROR")
    events = [json.loads(line) for line in said.splitlines()]
    assert [e["kind"] for e in events if e["event"] == "task"] == ["edit"]
    assert events[-1]["event"] == "end" and events[-1]["done"] == 1


@pytest.mark.parametrize(
    ("line", "said"),
    [
        ("", "Give pictures, a folder of them, or a list of edits"),
        ("a.png", "Say what is to change, with --instruction"),
        ("gone.png --instruction x", "'gone.png': there is no such file or folder"),
        ("empty --instruction x", "empty: holds no pictures"),
        ("e.csv --instruction x", "have instructions of their own in the file"),
        ("bad.csv", "bad.csv: line 1: no column gives the picture"),
        ("typo.csv", "column 'instructoin' is unknown; did you mean 'instruction'?"),
        ("a.png --instruction ' '", "--instruction: is blank; say what is to change"),
        ("a.png --instruction x --with gone.png", "--with: 'gone.png' is not a file"),
        ("a.png --instruction x --with e.csv", "--with: e.csv is no picture"),
        ("a.png --instruction x --mask e.csv", "e.csv is no picture"),
        ("a.png --instruction x --mask gone", "there is no such file or folder"),
        ("a.png --instruction x --grid stepps=3", "did you mean 'steps'?"),
        ("a.png --instruction x --seed -1", "expected a whole number from 0"),
        ("a.png --instruction x --seed=-1", "expected a whole number from 0"),
        ("a.png --instruction x --gpu-ids 0", "Give either --num-gpus or --gpu-ids"),
        ("a.png --from-png a.png", "Give either PICTURES or --from-png"),
        ("--from-png a.png --instruction x", "pictures of --from-png say it themselves"),
        ("--from-png a.png", "does not say how it was made"),
        ("a.png --instruction x --only b", "nothing here is called 'b'"),
    ],
)
def test_unusable_input_is_one_line(command: Command, line: str, said: str) -> None:
    command.picture("a.png")
    (command.folder / "empty").mkdir()
    (command.folder / "e.csv").write_text("picture,instruction\na.png,x\n")
    (command.folder / "bad.csv").write_text("colour,instruction\nred,x\n")
    (command.folder / "typo.csv").write_text("picture,instructoin\na.png,x\n")
    code, text = command.run(*shlex.split(line))
    assert said in text, text
    assert code == (1 if line == "--from-png a.png" else 2)


def test_settings_of_a_benchmark_are_taken_without_what_is_its_own(command: Command) -> None:
    command.picture("a.png")
    code, said = command.run("a.png", *NIGHT, data="pairs", stages="auto")
    assert code == 0 and "data, stages: of the benchmark alone, passed over" in said
    code, said = command.run("a.png", *NIGHT, editor={"modell": "x"})
    assert code == 2 and "did you mean 'model'?" in said


def test_every_example_of_the_help_is_a_line_of_arguments() -> None:
    lines = [line.strip() for line in EXAMPLES.splitlines() if "python edit_images.py" in line]
    assert len(lines) == 7
    for line in lines:
        options = parse_arguments(shlex.split(line.partition("edit_images.py")[2]))
        check_source(options)


def test_edits_come_on_contact_sheets(command: Command, monkeypatch: pytest.MonkeyPatch) -> None:
    command.picture("house.png", size=(64, 48))
    assert command.run("house.png", *NIGHT)[0] == 0
    for sheet in ("contact_sheet", "edit_sheet"):
        monkeypatch.setattr(sys, "argv", ["sheet", "outputs/edited", f"{sheet}.png"])
        names = runpy.run_path(str(PROJECT / "examples" / f"{sheet}.py"))
        names["main"]()
        with Image.open(f"{sheet}.png") as picture:
            middle = names["GAP"] + names["PICTURE"] // 2
            assert picture.convert("RGB").getpixel((middle, middle)) not in (
                names["PAPER"],
                names["EMPTY"],
            )


# -- as a process ------------------------------------------------------------------


@pytest.mark.slow
def test_ctrl_c_ends_a_run_and_the_same_command_goes_on(project: Project) -> None:
    folder = project.folder / "photos"
    folder.mkdir()
    for number in range(60):
        Image.new("RGB", (128, 128), (4 * number, 0, 0)).save(folder / f"p{number}.png")
    slow = {"seconds_per_megapixel_step": 20.0}
    settings = simulated(editor={"model": "simulated"}, simulated=slow, device="cpu", gallery=False)
    config = str(project.write_settings(settings))
    line = ["photos", *NIGHT, "--config", config, "--set", "steps=3", "--set", "size=128x128"]

    run = project.execute(EDIT_IMAGES, line)
    made = project.folder / "outputs" / "photos_edited"
    wait_until(lambda: any(made.glob("*.png")), "a picture")
    run.interrupt()
    assert run.finish() == 130, run.errors
    done = len(list(made.glob("*.png")))
    assert 0 < done < 60 and "Continue later with" in run.errors

    project.write_settings({**settings, "simulated": {"seconds_per_megapixel_step": 0.0}})
    run = project.execute(EDIT_IMAGES, line)
    assert run.finish() == 0, run.errors
    assert run.output.splitlines()[0] == f"60 edits: {60 - done} done, {done} skipped"


# -- what changed ------------------------------------------------------------------------


def test_a_changed_mask_is_called_a_mask_and_not_a_source_picture(command: Command) -> None:
    command.picture("a.png"), command.picture("mask.png", colour="white")
    edit = {"instruction": "x", "source": "a.png", "mask": "mask.png"}
    (command.folder / "edits.json").write_text(json.dumps([edit]))

    def plan() -> str:
        code, said = command.run("edits.json", "--dry-run")
        [line] = [line for line in said.splitlines() if line.startswith("Plan: ")]
        assert code == 0
        return line

    assert command.run("edits.json")[0] == 0
    command.picture("mask.png", colour="black")
    assert "1 changed (mask: 1)" in plan()
    command.picture("a.png", colour="blue")
    assert "1 changed (source picture: 1, mask: 1)" in plan()
    command.picture("mask.png", colour="white")
    assert "1 changed (source picture: 1)" in plan()
    edit.pop("mask")
    command.picture("a.png")
    (command.folder / "edits.json").write_text(json.dumps([edit]))
    assert "1 changed (mask: 1)" in plan()
