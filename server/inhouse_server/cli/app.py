"""The Typer application and its commands."""

from __future__ import annotations

import typer

from inhouse_server.cli import (
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
    search,
    serve,
    status,
    sync,
    token,
    train,
)

app = typer.Typer(
    help="An assistant that knows your repository: it retrieves, it is fine-tuned, it says what it rests on.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
)
app.command("init")(init.init)
app.command("doctor")(doctor.doctor)
app.command("index")(index.index)
app.command("search")(search.search)
app.command("ask")(ask.ask)
app.command("sync")(sync.sync)
app.add_typer(dataset.app, name="dataset")
app.command("train")(train.train)
app.add_typer(evaluate.app, name="eval")
app.add_typer(retrain.app, name="retrain")
app.add_typer(adapters.app, name="adapters")
app.command("review")(review.review)
app.command("post-review", hidden=True)(post_review.post_review)
app.command("serve")(serve.serve)
app.add_typer(token.app, name="token")
app.command("status")(status.status)
app.command("lsp")(lsp.lsp)
app.command("mcp")(mcp.mcp)
