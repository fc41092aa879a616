"""The Typer application and its commands."""

from __future__ import annotations

from typing import Annotated, Any

import typer
from typer.core import TyperGroup

from inhouse_server.cli import (
    about,
    adapters,
    ask,
    dataset,
    doctor,
    evaluate,
    index,
    init,
    lsp,
    mcp,
    post_review,
    retrain,
    review,
    review_hook,
    search,
    serve,
    slack,
    status,
    sweep,
    sync,
    token,
    train,
    webhook,
)

_CHANGE = "change"


class _ReviewGroup(TyperGroup):
    """`inhouse review` reviews whatever follows, unless that is the name of a command about the hook."""

    def parse_args(self, ctx: Any, args: list[str]) -> list[str]:
        if not args or args[0] not in self.commands or args[0] == _CHANGE:
            args = [_CHANGE, *args]
        return super().parse_args(ctx, args)

    def resolve_command(self, ctx: Any, args: list[str]) -> tuple[str | None, Any, list[str]]:
        name, command, rest = super().resolve_command(ctx, args)
        return "" if name == _CHANGE else name, command, rest  # nobody writes that name, so usage does not show it


_review = typer.Typer(cls=_ReviewGroup, help=review.review.__doc__)
_review.command(
    _CHANGE, hidden=True, epilog="'inhouse review install-hook' and 'uninstall-hook': review before each push."
)(review.review)
_review.command("install-hook")(review_hook.install_hook)
_review.command("uninstall-hook")(review_hook.uninstall_hook)
_review.command("pre-push", hidden=True)(review_hook.pre_push)

app = typer.Typer(
    help="An assistant that knows your repository: it retrieves, it is fine-tuned, it says what it rests on.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
)


@app.callback()
def options_of_all(
    version: Annotated[
        bool, typer.Option("--version", callback=about.show_version, is_eager=True, help="Say which version this is.")
    ] = False,
) -> None:
    """What comes before the name of a command."""


app.command("init")(init.init)
app.command("doctor")(doctor.doctor)
app.command("index")(index.index)
app.command("search")(search.search)
app.command("ask")(ask.ask)
app.command("sync", short_help="Read the forge's merged pull requests.")(sync.sync)
app.add_typer(dataset.app, name="dataset")
app.command("train", short_help="Fine-tune, without evaluating or promoting.")(train.train)
app.command("sweep", short_help="Search for better settings of a recipe.")(sweep.sweep)
app.add_typer(evaluate.app, name="eval")
app.add_typer(retrain.app, name="retrain", short_help="Train a candidate, and promote it only if it is better.")
app.add_typer(adapters.app, name="adapters")
app.add_typer(_review, name="review", short_help="Review a change: what is missing, what is unlike the house.")
app.command("post-review", hidden=True)(post_review.post_review)
app.add_typer(webhook.app, name="webhook")
app.command("serve")(serve.serve)
app.add_typer(token.app, name="token")
app.command("status", short_help="Show model, index, retraining, and what is at work.")(status.status)
app.command("lsp")(lsp.lsp)
app.command("mcp", short_help="Serve tools for an MCP client on standard input and output.")(mcp.mcp)
app.command("slack", short_help="Answer in Slack, in the channels that you name.")(slack.slack)
