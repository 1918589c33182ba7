"""Makes the peers' environment: segmentation-models-pytorch, MONAI and nnU-Net v2, apart from whatwhere's own.

    python bench/peers/setup.py                                  # bench/out/peers-venv
    python bench/peers/setup.py --venv DIR --torch-from .venv    # with the packages of another environment

Every package is pinned in ``requirements.txt`` and installed with ``--no-deps``: nothing can pull another torch,
triton or CUDA packages. With ``--torch-from`` the new environment also sees what is installed in the other one (by a
``.pth`` line) and only what is missing there, or has another version, is installed.

torchvision's wheel is built for torch with CUDA and can't be imported beside a CPU build ("operator torchvision::nms
does not exist"); ``torchvision_without_operators.py`` says what is done about it, in this environment alone.
"""

from __future__ import annotations

import argparse
import shutil
import subprocess
import sys
import venv
from importlib.metadata import distributions
from pathlib import Path

HERE = Path(__file__).resolve().parent
HOOK = "torchvision_without_operators"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--venv", type=Path, default=HERE.parent / "out" / "peers-venv")
    parser.add_argument(
        "--torch-from", type=Path, help="an environment with the pinned torch, to be seen from the new one"
    )
    options = parser.parse_args()
    if not (options.venv / "bin" / "python").exists():
        venv.create(options.venv, with_pip=True)
    packages = site_packages(options.venv)
    seen = [str(packages)]
    if options.torch_from:
        other = site_packages(options.torch_from)
        (packages / "torch-from.pth").write_text(f"{other}\n", encoding="utf-8")
        seen.append(str(other))
    install(options.venv, missing(seen))
    shutil.copy(HERE / f"{HOOK}.py", packages)
    (packages / f"{HOOK}.pth").write_text(f"import {HOOK}\n", encoding="utf-8")
    python = options.venv / "bin" / "python"
    subprocess.run([python, "-c", CHECK], check=True)
    print(f"ready: {options.venv}")


CHECK = """
from importlib.metadata import distributions, version
cuda = [d.name for d in distributions() if d.name and d.name.lower().startswith(("nvidia-", "triton"))]
assert not cuda, f"CUDA packages came along: {cuda}"
import monai, nnunetv2, segmentation_models_pytorch, torch, torchvision
from nnunetv2.training.nnUNetTrainer.nnUNetTrainer import nnUNetTrainer
print(*(f"{p} {version(p)}" for p in ("torch", "segmentation-models-pytorch", "monai", "nnunetv2")), sep=", ")
"""


def site_packages(environment: Path) -> Path:
    """Where an environment keeps its packages."""
    found = sorted((environment.absolute() / "lib").glob("python3*/site-packages"))
    if not found:
        sys.exit(f"{environment} is no virtual environment (there is no lib/python3*/site-packages in it)")
    return found[0]


def missing(seen: list[str]) -> list[str]:
    """The pinned requirements that are not at hand in exactly this version; a local build of it (2.13.0+cpu) is."""
    held: dict[str, str] = {}
    for distribution in distributions(path=seen):
        held.setdefault(normal(distribution.name), distribution.version.partition("+")[0])
    lines = (HERE / "requirements.txt").read_text(encoding="utf-8").splitlines()
    pinned = [line for line in lines if line and not line.startswith("#")]
    return [line for line in pinned if held.get(normal(line.partition("==")[0])) != line.partition("==")[2]]


def normal(name: str) -> str:
    return name.lower().replace("_", "-")


def install(environment: Path, packages: list[str]) -> None:
    """With pip, torch first and by its exact version, nothing with dependencies."""
    python = environment / "bin" / "python"
    torch = [package for package in packages if package.startswith("torch==")]
    for part in (torch, [package for package in packages if package not in torch]):
        if part:
            command = [python, "-m", "pip", "install", "--quiet", "--disable-pip-version-check", "--no-deps", *part]
            subprocess.run(command, check=True)


if __name__ == "__main__":
    main()
