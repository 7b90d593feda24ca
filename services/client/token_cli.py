"""The commands `fasterseg token`: make, list and revoke the tokens of a project."""

from typing import Annotated

import typer
from rich.console import Console
from rich.table import Table
from rich.text import Text

from .cli_connection import DEFAULT_URL, AsJson, Url, id_of, print_json, say, service
from .schemas import Scope, TokenId, TokenPage, TokenRecord

ID_LENGTH = 12

token_app = typer.Typer(no_args_is_help=True, help="Tokens: make, list, revoke.")


@token_app.command()
def create(
    name: Annotated[str, typer.Argument(metavar="NAME", help="Who will use it, for example `release gate`.")],
    scope: Annotated[Scope, typer.Option(help="What it may do, each also what those before it may.")] = Scope.SUBMIT,
    project: Annotated[str | None, typer.Option(help="Another project than yours; operators only.")] = None,
    days: Annotated[int | None, typer.Option(min=1, help="After which it expires.")] = None,
    url: Url = DEFAULT_URL,
) -> None:
    """Make a token and print its secret, which is never shown again."""
    with service(url) as client:
        made = client.create_token(name, scope, project=project, days=days)
    say(f"token {made.record.id} of project {made.record.project}, scope {made.record.scope}:")
    typer.echo(made.secret)


@token_app.command("list")
def list_(as_json: AsJson = False, url: Url = DEFAULT_URL) -> None:
    """List the tokens of the project."""
    with service(url) as client:
        tokens = client.tokens()
    if as_json:
        print_json(TokenPage(items=tokens))
        return
    table = Table(box=None, pad_edge=False)
    table.add_column("ID", no_wrap=True, min_width=ID_LENGTH)
    for column in ("NAME", "SCOPE", "CREATED BY", "LAST USED", ""):
        table.add_column(column, overflow="fold")
    for token in tokens:
        used = "never" if token.last_used_at is None else f"{token.last_used_at:%Y-%m-%d %H:%M}"
        table.add_row(token.id, Text(token.name), token.scope, Text(token.created_by or ""), used, _end(token))
    Console().print(table)


@token_app.command()
def revoke(
    token_id: Annotated[str, typer.Argument(metavar="ID", callback=id_of(TokenId))], url: Url = DEFAULT_URL
) -> None:
    """Make a token good for nothing, at once."""
    with service(url) as client:
        client.revoke_token(token_id)


def _end(token: TokenRecord) -> str:
    if token.revoked_at is not None:
        return f"revoked {token.revoked_at:%Y-%m-%d}"
    return "" if token.expires_at is None else f"expires {token.expires_at:%Y-%m-%d}"
