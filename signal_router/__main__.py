"""`python -m signal_router`: the same program as the command `signal-router`."""

from __future__ import annotations

from signal_router.cli.main import main

if __name__ == "__main__":
    main(prog_name="signal-router")
