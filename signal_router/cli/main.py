"""The command `signal-router`: a table of nouns, loaded one by one when called, so that `--help` answers at once."""

from __future__ import annotations

from importlib import import_module
from importlib.util import find_spec
from typing import Any

import click

from signal_router import __version__
from signal_router.cli.output import print_error
from signal_router.errors import SignalRouterError

NOUNS = {
    "run": "Runs a worker: signals in, triggers and lineage out.",
    "broker": "Runs an embedded real Kafka in the foreground.",
    "topics": "Compares the cluster's topics with their files, and applies them.",
    "validate": "Checks definition files; sends nothing.",
    "apply": "Publishes definitions and waits until the workers have them.",
    "subscriptions": "Lists, shows, deletes and tests subscriptions.",
    "signals": "Publishes and follows signals.",
    "triggers": "Follows triggers.",
    "lineage": "Answers which signals caused a trigger, and what a signal caused.",
    "joins": "Lists what is pending and what it still waits for.",
    "dead-letters": "Lists, shows and replays dead letters.",
    "workers": "Lists workers and what they hold.",
    "verify": "Checks what stands on the topics, invariant by invariant.",
    "demo": "Tells the whole story on a real Kafka in under a minute.",
}
"""Each noun and its line in `--help`; its command is `cli` in signal_router/cli/<noun>.py, with `_` for `-`."""

EXIT_FAULT = 2  # a named fault: configuration, broker, definition, state
EXIT_INTERRUPTED = 130  # what shells expect after Ctrl-C


class LazyNouns(click.Group):
    """A group whose commands are imported when called; errors of the program's own tree become two lines."""

    def list_commands(self, ctx: click.Context) -> list[str]:  # noqa: ARG002  click's signature
        """The nouns whose file exists, in the order of the table."""
        return [noun for noun in NOUNS if find_spec(_module(noun)) is not None]

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:  # noqa: ARG002
        """Imports the noun's file."""
        if cmd_name not in NOUNS or find_spec(_module(cmd_name)) is None:
            return None
        command: click.Command = import_module(_module(cmd_name)).cli
        return command

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """Writes the table without importing anything."""
        with formatter.section("Commands"):
            formatter.write_dl([(noun, NOUNS[noun]) for noun in self.list_commands(ctx)])

    def invoke(self, ctx: click.Context) -> Any:  # noqa: ANN401  click's signature
        """Runs the command; a fault of the program's own tree ends with exit code 2, Ctrl-C with 130."""
        try:
            return super().invoke(ctx)
        except SignalRouterError as error:
            print_error(error.message, error.hint)
            ctx.exit(EXIT_FAULT)
        except KeyboardInterrupt:
            ctx.exit(EXIT_INTERRUPTED)


def _module(noun: str) -> str:
    return f"signal_router.cli.{noun.replace('-', '_')}"


@click.group(cls=LazyNouns, context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(__version__, prog_name="signal-router")
def main() -> None:
    """Starts workflows from signals on Kafka: one trigger per matching set of signals, with lineage."""
