"""Reading a command line of ``dr`` without doing it."""

from typer.main import get_command

from pipelines.cli.main import app


def parse(arguments: list[str]) -> None:
    """Parse the words after ``dr``; raise a :class:`typer.TyperException` if they are wrong."""
    context, rest = get_command(app).make_context("dr", list(arguments)), list(arguments)
    while hasattr(context.command, "resolve_command"):
        name, command, rest = context.command.resolve_command(context, rest)
        context = command.make_context(name, rest, parent=context)
        rest = context._protected_args + context.args
