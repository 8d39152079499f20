"""Bytecode of all tests, written once before each test process imports them.

In a fresh checkout there is none. Processes that collect side by side would each rewrite the
assertions of every file, which takes four seconds of a core.
"""

import sys
from collections.abc import Iterable
from importlib.util import module_from_spec, spec_from_file_location
from pathlib import Path
from unittest import mock

import pytest
from _pytest.assertion import rewrite


def write_bytecode(config: pytest.Config, files: Iterable[Path]) -> None:
    """Have pytest rewrite what it has no bytecode of, as it does at an import; nothing is run."""
    hook = config.pluginmanager.rewrite_hook
    if sys.dont_write_bytecode or not isinstance(hook, rewrite.AssertionRewritingHook):
        return  # by --assert=plain, nothing is rewritten
    with mock.patch.object(rewrite, "exec", create=True):
        for file in files:
            spec = spec_from_file_location(file.stem, file, loader=hook)
            assert spec is not None
            hook.exec_module(module_from_spec(spec))
