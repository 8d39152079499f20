"""The example persona, as `make demo` of the README draws it."""

from PIL import Image

from tests.conftest import COMMAND, PROJECT, Project


def test_the_example_draws_on_any_machine(project: Project) -> None:
    line = [str(PROJECT / "examples" / "persona_tweets.json"), "1", "--limit", "2"]
    line += ["--config", str(project.write_settings({"device": "cpu"}))]
    line += ["--output-dir", str(project.folder / "out")]
    run = project.execute(COMMAND, line, "models")
    assert run.finish() == 0, run.errors
    assert "the embedded demo model (auto: no GPU is visible" in run.errors
    assert "needs one of 22 GiB, or of 3.0 with memory: sequential_offload)." in run.errors
    pictures = sorted((project.folder / "out" / "persona_tweets").glob("*.png"))
    assert [p.name for p in pictures] == ["Mira_Vale_00.png", "Mira_Vale_01.png"]
    with Image.open(pictures[0]) as picture:
        assert picture.size == (128, 128)
