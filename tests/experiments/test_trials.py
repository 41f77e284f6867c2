"""The folder of a comparison."""

from __future__ import annotations

from pathlib import Path

import pytest

from srucli.errors import UsageError
from srucli.experiments.trials import Folder, facts_of
from srucli.io.files import to_json
from tests.experiments.support import plan


def test_a_comparison_without_a_new_setting_is_resumed(tmp_path: Path) -> None:
    """A setting that did not exist has its default."""
    path, facts = tmp_path / "out", facts_of(plan(), {})
    old = {**facts, "settings": facts["settings"].replace("  tensorboard: false\n", "")}
    assert len(old["settings"]) < len(facts["settings"]) - 15
    with Folder.claim(path, old, (), force=False):
        (path / "plan.json").write_bytes(to_json(old))
    with Folder.claim(path, facts, (), force=False):
        assert (path / "plan.json").exists()


@pytest.mark.parametrize("damage", ["3", "-3", "\ud800", "&a [*a]", "{"])
def test_a_comparison_with_other_settings_is_refused(tmp_path: Path, damage: str) -> None:
    path, facts = tmp_path / "out", facts_of(plan(), {})
    old = {**facts, "settings": facts["settings"].replace("layers: 2", f"layers: {damage}")}
    assert old != facts
    with Folder.claim(path, old, (), force=False):
        (path / "plan.json").write_bytes(to_json(old))
    remedy = "holds a comparison with other settings; choose another -o, or add --force to replace"
    with pytest.raises(UsageError, match=remedy), Folder.claim(path, facts, (), force=False):
        pass
    with Folder.claim(path, facts, (), force=True):
        assert not (path / "plan.json").exists()
