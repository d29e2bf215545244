"""The contracts between the layers name every module they are about."""

from __future__ import annotations

import tomllib
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
CONTRACTS = {
    contract["name"]: contract
    for contract in tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]["importlinter"]["contracts"]
}


def test_every_module_of_the_reference_stands_in_its_contract():
    there = {f"signal_router.testing.{path.stem}" for path in (ROOT / "signal_router/testing").glob("reference*.py")}

    assert there
    assert set(CONTRACTS["the reference shares no code with the engine"]["source_modules"]) == there


def test_every_package_stands_in_the_contracts_of_faust_and_rocksdb():
    packages = {f"signal_router.{path.parent.name}" for path in (ROOT / "signal_router").glob("*/__init__.py")}

    faust = set(CONTRACTS["Faust stays in runtime"]["source_modules"])
    rocksdb = set(CONTRACTS["RocksDB stays in state"]["source_modules"])

    assert packages - faust == {"signal_router.runtime"}
    assert packages - rocksdb == {"signal_router.state"}
