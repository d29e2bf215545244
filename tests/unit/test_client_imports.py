"""The SDK is imported by workflows of all kinds: it drags in nothing that only a worker needs."""

from __future__ import annotations

import subprocess
import sys

HEAVY = ("faust", "mode", "rocksdict", "click", "rich", "aiohttp", "structlog", "prometheus_client", "pydantic")


def test_importing_the_sdk_imports_no_framework_no_store_and_no_command_line():
    program = f"import sys, signal_router.client; print([m for m in {HEAVY!r} if m in sys.modules])"

    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True, timeout=60)

    assert done.stdout.strip() == "[]"


def test_the_same_look_finds_them_where_they_are():
    program = f"import sys, signal_router.cli.main; print([m for m in {HEAVY!r} if m in sys.modules])"

    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True, timeout=60)

    assert "click" in done.stdout
