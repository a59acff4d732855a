"""The recipes of docs/recipes.md work as written: from another folder, changed, swept and resumed."""

import pytest
from documented import write_files
from running import ROOT, command, result

PAGE = ROOT / "docs" / "recipes.md"
QUICK = ("figures=never", "probe=[]")


@pytest.mark.ci_slice
@pytest.mark.slow
def test_the_recipes_run_as_the_page_says(tmp_path):
    assert write_files(PAGE, tmp_path) == ["my_conf/recipe/mine.yaml", "my_conf/recipe/mine_sweep.yaml"]
    mine = ("--config-dir", "my_conf", "recipe=mine", *QUICK)
    done = command(*mine, "name=first", cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    assert "hidden:\n  - 32\n" in (tmp_path / "outputs" / "first" / "config.yaml").read_text()
    (tmp_path / "my_conf").rename(tmp_path / "elsewhere")
    assert command("resume=outputs/first", cwd=tmp_path).returncode == 0
    assert result(tmp_path / "outputs" / "first")["status"] == "done"
    sweep = ("--config-dir", "elsewhere", "recipe=mine_sweep", *QUICK, "sweep=four")
    done = command(*sweep, cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    found = {path.name.rpartition("-")[0] for path in (tmp_path / "outputs" / "sweeps" / "four").glob("lr=*")}
    assert found == {f"lr={lr}-hidden={n}" for lr in ("0.001", "0.003") for n in (16, 32)}
    assert command("--config-dir", "elsewhere", "resume=outputs/sweeps/four", cwd=tmp_path).returncode == 0
