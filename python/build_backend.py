"""Builds the package from source for pip: maturin, with the binary `reckon` beside the module.

maturin builds the module alone, and takes the binary from the folder that `tool.maturin.data` names: it is built
and laid there first. scripts/wheel does the same for old systems, and needs no backend.
"""

import os
import pathlib
import shutil
import subprocess

import maturin
from maturin import (  # noqa: F401 - hooks that are passed on as they are
    build_sdist,
    get_requires_for_build_editable,
    get_requires_for_build_sdist,
    get_requires_for_build_wheel,
    prepare_metadata_for_build_editable,
    prepare_metadata_for_build_wheel,
)

ROOT = pathlib.Path(__file__).resolve().parent.parent
SCRIPTS = ROOT / "target/wheel/reckon_rl.data/scripts"
# maturin wants the folder to be there whatever it is asked for, the metadata too.
SCRIPTS.mkdir(parents=True, exist_ok=True)


def build_wheel(wheel_directory, config_settings=None, metadata_directory=None):
    lay_binary()
    return maturin.build_wheel(wheel_directory, config_settings, metadata_directory)


def build_editable(wheel_directory, config_settings=None, metadata_directory=None):
    lay_binary()
    return maturin.build_editable(wheel_directory, config_settings, metadata_directory)


def lay_binary():
    subprocess.run(["cargo", "build", "--release", "--locked", "--bin", "reckon"], cwd=ROOT, check=True)
    target = pathlib.Path(os.environ.get("CARGO_TARGET_DIR", ROOT / "target"))
    shutil.copy2(target / "release/reckon", SCRIPTS / "reckon")
