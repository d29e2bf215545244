"""`signal-router validate`: checks definition files and sends nothing."""

from __future__ import annotations

import click

from signal_router.cli.definition_files import as_row, files_option, read_files, say_problems
from signal_router.cli.output import Output, output_option
from signal_router.errors import DefinitionError
from signal_router.model.documents import read_documents

EXIT_INVALID = 2


@click.command()
@files_option
@output_option
@click.pass_context
def cli(context: click.Context, files: tuple[str, ...], output: Output) -> None:
    """Checks definition files and sends nothing: exit code 0 all valid, 2 not.

    Every problem of every file is told at once, with file, line and field.
    """
    try:
        reading = read_documents(read_files(files))
    except DefinitionError as error:
        if output.for_programs:
            output.record({"valid": False, "definitions": [], "problems": [as_row(each) for each in error.problems]})
        else:
            say_problems("error", error.problems)
            output.say(f"{len(error.problems)} problems")
        context.exit(EXIT_INVALID)
    if output.for_programs:
        found = [{"id": each.id, "kind": each.kind, "version": each.version} for each in reading.documents]
        warnings = [as_row(each) for each in reading.warnings]
        output.record({"valid": True, "definitions": found, "problems": [], "warnings": warnings})
        return
    say_problems("warning", reading.warnings)
    for each in reading.documents:
        output.say(f"{each.id}: valid")
