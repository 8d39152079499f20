"""`serve.py keys`, and what is refused without keys."""

import json
import re
import stat
import subprocess
import sys
from pathlib import Path

import pytest

from apps.server.command import main as serve
from apps.server.errors import ApiError
from apps.server.safety.key_command import main
from apps.server.safety.keys import FILE_NAME, ApiKeys, add_key, read_keys
from core.errors import InputError
from tests.conftest import PATIENCE, PROJECT


def keys(folder: Path, *words: str) -> int:
    return main([*words, "--output-dir", str(folder)])


def test_keys_are_made_listed_replaced_and_ended(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert keys(tmp_path, "add", "alice") == 0
    secret = capsys.readouterr().out.strip()
    file = tmp_path / FILE_NAME
    assert stat.S_IMODE(file.stat().st_mode) == 0o600
    assert secret.startswith("sk-") and secret not in file.read_text()
    made = ApiKeys(file).owner([f"Bearer {secret}"])
    assert made is not None and not made.operator
    assert keys(tmp_path, "add", "alice") == 2
    assert "alice has a key already" in capsys.readouterr().err
    assert keys(tmp_path, "rotate", "alice") == 0
    another = capsys.readouterr().out.strip()
    replaced = ApiKeys(file).owner([f"bearer {another}"])
    assert replaced is not None and replaced.id == made.id
    with pytest.raises(ApiError, match="Incorrect API key"):
        ApiKeys(file).owner([f"Bearer {secret}"])
    assert made is not None and not made.operator
    assert keys(tmp_path, "list") == 0
    listed = capsys.readouterr().out
    assert listed.startswith(f"alice  {made.id}  since ") and another not in listed
    assert keys(tmp_path, "revoke", "alice") == 0
    assert keys(tmp_path, "revoke", "alice") == 2
    assert read_keys(file) == []
    capsys.readouterr()
    assert keys(tmp_path, "list") == 0
    none = capsys.readouterr()
    assert none.out == "" and f"There are no keys in {file}." in none.err


def test_keys_wait_for_nothing_of_what_a_daemon_is_made_of(tmp_path: Path) -> None:
    line = ["-X", "importtime", "serve.py", "keys", "list", "--output-dir", str(tmp_path)]
    run = subprocess.run(
        [sys.executable, *line], cwd=PROJECT, text=True, capture_output=True, timeout=PATIENCE
    )
    assert run.returncode == 0 and "There are no keys in" in run.stderr
    imported = set(re.findall(r"[|] +(\w+)$", run.stderr, re.MULTILINE))
    assert "pydantic" in imported
    assert not imported & {"fastapi", "uvicorn", "numpy", "torch", "sqlite3"}


def test_a_command_without_an_action_says_that_one_is_needed(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit):
        keys(tmp_path)
    assert "the following arguments are required: ACTION" in capsys.readouterr().err


def test_a_key_says_how_urgent_its_jobs_may_be(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    def listed() -> dict[str, str]:
        capsys.readouterr()
        assert keys(tmp_path, "list") == 0
        lines = capsys.readouterr().out.splitlines()
        return {line.split()[0]: line.rpartition("  ")[2] for line in lines}

    assert keys(tmp_path, "add", "alice") == 0
    assert keys(tmp_path, "add", "ci", "--max-priority", "-5") == 0
    assert keys(tmp_path, "add", "root", "--operator") == 0
    assert listed() == {
        "alice": "priority up to 0",
        "ci": "priority up to -5",
        "root": "operator, any priority",
    }
    assert keys(tmp_path, "limit", "alice", "--max-priority", "3") == 0
    assert keys(tmp_path, "rotate", "alice") == 0
    assert listed()["alice"] == "priority up to 3"
    assert keys(tmp_path, "limit", "root", "--max-priority", "3") == 2
    assert "root is an operator" in capsys.readouterr().err
    assert keys(tmp_path, "limit", "bob", "--max-priority", "3") == 2
    assert "'bob' has no key" in capsys.readouterr().err


@pytest.mark.parametrize(
    "words",
    [["limit", "alice"], ["add", "bob", "--max-priority", "11"], ["list", "--max-priority", "1"],
     ["add", "bob", "--max-priority", "high"], ["add", "bob", "--operator", "--max-priority", "1"]],
)  # fmt: skip
def test_a_priority_that_is_none_is_a_wrong_command(
    tmp_path: Path, words: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit) as ended:
        keys(tmp_path, *words)
    assert ended.value.code == 2
    assert "priority" in capsys.readouterr().err
    assert not (tmp_path / FILE_NAME).exists()


@pytest.mark.parametrize("name", ["", "a b", "../x", "a" * 65, "a\nb"])
def test_a_name_that_is_none_is_refused(tmp_path: Path, name: str) -> None:
    with pytest.raises(InputError, match="name"):
        add_key(tmp_path / FILE_NAME, name)


@pytest.mark.parametrize("host", ["0.0.0.0", "::", "192.0.2.1"])
def test_other_machines_are_not_served_without_keys(
    tmp_path: Path, host: str, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = tmp_path / "out"
    assert serve(["--host", host, "--port", "0", "--output-dir", str(folder)]) == 2
    said = capsys.readouterr().err
    assert f"host: {host} can be reached from other machines" in said
    assert "serve.py keys add NAME" in said
    assert not folder.exists()


@pytest.mark.parametrize(
    "text", ["", "{}", "[]", '{"keys": [{}]}', '{"keys": [{"id": "a"}]}', "[" * 5000,
             json.dumps({"keys": [{"id": "a", "name": "a", "sha256": "ab", "created": 1}]})],
)  # fmt: skip
def test_a_damaged_file_of_keys_opens_nothing(tmp_path: Path, text: str) -> None:
    file = tmp_path / FILE_NAME
    file.write_text(text)
    with pytest.raises(InputError, match="no file of API keys, or damaged"):
        ApiKeys(file)


def test_a_file_of_keys_that_others_may_write_is_refused(tmp_path: Path) -> None:
    file = tmp_path / FILE_NAME
    add_key(file, "alice")
    file.chmod(0o620)
    with pytest.raises(InputError, match="must be 0600"):
        ApiKeys(file)


def test_where_there_was_a_key_one_is_needed(tmp_path: Path) -> None:
    file = tmp_path / FILE_NAME
    add_key(file, "alice")
    known = ApiKeys(file)
    file.unlink()
    known._look_at = 0.0
    assert known.owner([]) is None and known.needed


@pytest.mark.parametrize(
    ("option", "value", "told"),
    [("--port", "99999", "port: "), ("--host", "", "host: "), ("--drain-timeout", "nan", "drain"),
     ("--output-dir", "", "output_dir: ")],
)  # fmt: skip
def test_an_argument_that_cannot_be_used_is_told_in_a_line(
    option: str, value: str, told: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert serve([option, value]) == 2
    said = capsys.readouterr().err
    assert told in said and len(said.splitlines()) == 1
