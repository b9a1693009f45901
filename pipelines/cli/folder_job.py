"""The options and the work of the jobs on a whole work folder: releases, maintenance and the deletion of a user."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Annotated, Literal

import typer

from dr_core.errors import ConfigError
from pipelines.cli.job import Figures
from pipelines.cli.options import ConfigOption, NeededWorkdirOption, RunIdOption, configured

if TYPE_CHECKING:
    from pipelines.storage.run_record import Run
    from pipelines.storage.workdir import Workdir


def releases(
    context: typer.Context,
    action: Annotated[Literal["promote", "rollback"], typer.Argument(help="What to do.")],
    workdir: NeededWorkdirOption,
    release: Annotated[str | None, typer.Option("--release", metavar="R", help="The release to promote.")] = None,
    run_id: RunIdOption = None,
) -> Figures:
    """Promote a release, or go back to the live one's parent."""
    from pipelines.spark.session import spark_session
    from pipelines.storage.publish import promote, rollback
    from pipelines.storage.releases import find_release

    with _recorded(context, workdir, run_id) as (folder, run):
        if (action == "promote") != (release is not None):
            raise ConfigError("promote needs --release, rollback goes to the live release's parent and takes none")
        with spark_session(f"releases {folder.uri}") as spark:
            chosen = release or (run and run.record.get("chosen")) or find_release(folder, None).parent_release
            if run is not None:
                run.record["chosen"] = chosen
                run.save()
            live = rollback(spark, folder) if chosen is None else promote(spark, folder, chosen)
    return {"release_id": live.release_id, "status": live.status}


def maintenance(
    context: typer.Context,
    config: ConfigOption,
    workdir: NeededWorkdirOption,
    vacuum_hours: Annotated[
        float, typer.Option("--vacuum-hours", metavar="H", help="Remove files deleted longer ago.")
    ] = 168.0,
    run_id: RunIdOption = None,
) -> Figures:
    """Delete what is beyond retention, then its files."""
    from pipelines.flows.retention import maintain
    from pipelines.spark.session import spark_session

    with _recorded(context, workdir, run_id) as (folder, _):
        chosen, _ = configured(config, None, workdir)
        spark_settings = chosen.spark
        with spark_session(
            f"maintenance {folder.uri}", master=spark_settings.master, conf=spark_settings.conf
        ) as spark:
            return maintain(spark, folder, chosen, vacuum_hours=vacuum_hours)


def delete_user(
    context: typer.Context,
    workdir: NeededWorkdirOption,
    user: Annotated[str, typer.Option("--user", metavar="U", help="The user, as in the logs.")],
    vacuum_now: Annotated[
        bool, typer.Option("--vacuum-now", help="Remove the files that held the rows, at once.")
    ] = False,
    run_id: RunIdOption = None,
) -> Figures:
    """Delete one user's rows."""
    from pipelines.flows.delete_user import delete_user as delete
    from pipelines.spark.session import spark_session

    with (
        _recorded(context, workdir, run_id) as (folder, _),
        spark_session(f"delete_user {folder.uri}") as spark,
    ):
        return {"removed": delete(spark, folder, user, vacuum_now=vacuum_now)}


@contextmanager
def _recorded(context: typer.Context, workdir: str, run_id: str | None) -> Iterator[tuple[Workdir, Run | None]]:
    """Keep the job's verdict in the record ``run_id``, if it has one."""
    from pipelines.storage.run_record import Run
    from pipelines.storage.workdir import Workdir

    context.obj["run_id"] = run_id
    folder = Workdir(workdir)
    if run_id is None:
        yield folder, None
        return
    folder.filesystem.makedirs(folder.path("runs"), exist_ok=True)
    run = Run(folder, run_id, "")
    with run.job(str(context.info_name), is_last=True):
        yield folder, run
