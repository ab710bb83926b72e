"""What is installed and deployed: four packages with generic names, and entry points that Prefect can import."""

from __future__ import annotations

import subprocess
import sys
import tomllib
from importlib import metadata
from pathlib import Path
from typing import Any

import pytest
import yaml

ROOT = Path(__file__).parent.parent
PACKAGES = ["flows", "tasks", "models", "infinitetalk"]
PROJECT: dict[str, Any] = tomllib.loads((ROOT / "pyproject.toml").read_text())
DEPLOYMENTS: list[dict[str, Any]] = yaml.safe_load((ROOT / "prefect.yaml").read_text())["deployments"]


def test_the_wheel_holds_four_packages_and_stays_private() -> None:
    assert PROJECT["tool"]["hatch"]["build"]["targets"]["wheel"]["packages"] == PACKAGES
    assert "Private :: Do Not Upload" in PROJECT["project"]["classifiers"]
    for package in PACKAGES:
        assert (ROOT / package / "__init__.py").is_file()


def test_no_other_distribution_brings_the_same_names() -> None:
    owners = metadata.packages_distributions()
    for package in PACKAGES:
        assert set(owners.get(package, ["infinidub"])) == {"infinidub"}, f"{package} is overwritten by a dependency"


def test_no_module_hides_a_package_of_ours() -> None:
    taken = {*PACKAGES, "infra", "tests"}
    for package in PACKAGES:
        for module in (ROOT / package).glob("*.py"):
            assert module.stem not in taken, f"{module} would be found instead of the package"
    assert not any((ROOT / "tests" / name).is_dir() for name in PACKAGES)


@pytest.mark.parametrize("deployment", DEPLOYMENTS, ids=lambda one: one["name"])
def test_deployments_are_dotted_and_take_the_parameters_they_are_given(deployment: dict[str, Any]) -> None:
    from importlib import import_module

    module, _, name = deployment["entrypoint"].rpartition(".")
    assert ":" not in deployment["entrypoint"]
    flow = getattr(import_module(module), name)
    flow.validate_parameters(deployment["parameters"])
    assert deployment["work_pool"]["name"] == "local"


def test_one_deployment_runs_every_night() -> None:
    schedules = [one for deployment in DEPLOYMENTS for one in deployment.get("schedules", [])]
    assert [one["cron"] for one in schedules] == ["0 2 * * *"]
    assert all(one["timezone"] for one in schedules)


def test_entry_points_import_from_anywhere(tmp_path: Path) -> None:
    modules = sorted({deployment["entrypoint"].rpartition(".")[0] for deployment in DEPLOYMENTS} | {"flows.cli"})
    program = f"import {', '.join(modules)}, sys; print(sys.path[0])"
    done = subprocess.run([sys.executable, "-c", program], cwd=tmp_path, text=True, capture_output=True, check=False)
    assert done.returncode == 0, done.stderr


def test_migrations_and_the_lock_of_weights_are_shipped() -> None:
    for file in ("models.lock", "migrations/env.py", "migrations/script.py.mako"):
        assert (ROOT / "models" / file).is_file()
    assert list((ROOT / "models" / "migrations" / "versions").glob("0001*.py"))
