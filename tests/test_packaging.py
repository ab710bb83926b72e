"""What is installed and deployed: four packages with generic names, and entry points that Prefect can import."""

from __future__ import annotations

import re
import subprocess
import sys
import tomllib
from importlib import import_module, metadata
from pathlib import Path
from typing import Any

import pytest
import yaml

ROOT = Path(__file__).parent.parent
PACKAGES = ["flows", "tasks", "models", "infinitetalk"]
PROJECT: dict[str, Any] = tomllib.loads((ROOT / "pyproject.toml").read_text())
PREFECT = (ROOT / "prefect.yaml").read_text()
DEPLOYMENTS: list[dict[str, Any]] = yaml.safe_load(PREFECT)["deployments"]


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
def test_parameters_exist_and_are_documented(deployment: dict[str, Any]) -> None:
    module, _, name = deployment["entrypoint"].rpartition(".")
    assert ":" not in deployment["entrypoint"]
    flow = getattr(import_module(module), name)
    for parameters in (deployment, *deployment.get("schedules", []), *deployment.get("triggers", [])):
        for parameter in parameters.get("parameters", {}):
            assert parameter in flow.parameters.properties, parameter
    for parameter, schema in flow.parameters.properties.items():
        assert schema.get("description"), f"{name}({parameter}) is not explained in its docstring"
    if not set(flow.parameters.required or ()) - set(deployment.get("parameters", {})):
        flow.validate_parameters(deployment.get("parameters", {}))


def test_every_default_is_explained_beside_it() -> None:
    blocks = re.findall(r"^    parameters:\n((?:      \S.*\n)+)", PREFECT, flags=re.MULTILINE)
    assert len(blocks) == sum("parameters" in one for one in DEPLOYMENTS)
    for line in "".join(blocks).splitlines():
        assert re.search(r"\S  +# \w", line), line


def test_schedules_have_a_timezone_and_parameters_of_their_own() -> None:
    schedules = {one["name"]: one["schedules"] for one in DEPLOYMENTS if "schedules" in one}
    assert set(schedules) == {"nightly", "reaper", "gc"}
    assert all(one["timezone"] and one["slug"] for listed in schedules.values() for one in listed)
    assert all(one["parameters"]["catalog"] for one in schedules["nightly"])


def test_entry_points_import_from_anywhere(tmp_path: Path) -> None:
    modules = sorted({deployment["entrypoint"].rpartition(".")[0] for deployment in DEPLOYMENTS} | {"flows.cli"})
    program = f"import {', '.join(modules)}, sys; print(sys.path[0])"
    done = subprocess.run([sys.executable, "-c", program], cwd=tmp_path, text=True, capture_output=True, check=False)
    assert done.returncode == 0, done.stderr


def test_migrations_and_the_lock_of_weights_are_shipped() -> None:
    for file in ("models.lock", "migrations/env.py", "migrations/script.py.mako"):
        assert (ROOT / "models" / file).is_file()
    assert list((ROOT / "models" / "migrations" / "versions").glob("0001*.py"))
