"""``dr releases``: what is live, what was, back and forth."""

from __future__ import annotations

from typing import Annotated

import typer

from pipelines.cli.answer import Answer
from pipelines.cli.options import FolderOption, JsonOption


def list_all(workdir: FolderOption, as_json: JsonOption = False) -> Answer:
    """List all releases, the oldest first."""
    from pipelines.storage.files import Files
    from pipelines.storage.releases import list_releases

    rows = [release.as_dict() for release in list_releases(Files(workdir))]
    lines = [f"{row['release_id']:40} {row['status']:10} {row['created_at']}" for row in rows]
    return Answer(rows, "\n".join(lines) or f"no releases in {workdir}")


def show(
    workdir: FolderOption,
    release: Annotated[str | None, typer.Argument(metavar="RELEASE", help="Default: the live one.")] = None,
    as_json: JsonOption = False,
) -> Answer:
    """Show one release."""
    from pipelines.storage.files import Files
    from pipelines.storage.releases import find_release

    document = find_release(Files(workdir), release).as_dict()
    return Answer(document, "\n".join(f"{name:15} {value}" for name, value in document.items()))


def promote(
    workdir: FolderOption,
    release: Annotated[str, typer.Argument(metavar="RELEASE", help="The one that is to go live.")],
    as_json: JsonOption = False,
) -> Answer:
    """Make a release the live one."""
    from pipelines.spark.session import spark_session
    from pipelines.storage.publish import promote as make_live
    from pipelines.storage.workdir import Workdir

    with spark_session("dr releases") as spark:
        live = make_live(spark, Workdir(workdir), release)
    return Answer(live.as_dict(), f"{live.release_id} is live")


def rollback(workdir: FolderOption, as_json: JsonOption = False) -> Answer:
    """Make the live release's parent the live one; to choose another release, use promote."""
    from pipelines.spark.session import spark_session
    from pipelines.storage.publish import rollback as go_back
    from pipelines.storage.workdir import Workdir

    with spark_session("dr releases") as spark:
        live = go_back(spark, Workdir(workdir))
    return Answer(live.as_dict(), f"{live.release_id} is live")
