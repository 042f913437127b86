"""The lifecycle of a worker's parts: steps that a part does not override do nothing; background tasks end with it."""

from __future__ import annotations

import asyncio

from streams.worker.lifecycle import BackgroundTasks, WorkerPart


def test_a_part_may_override_nothing() -> None:
    """Every step has a default, so a part implements only those that it needs."""

    async def run() -> None:
        part = WorkerPart()
        part.on_assigned([])
        await part.on_revoked()
        await part.tick()
        await part.close()

    asyncio.run(run())


def test_an_error_of_a_background_task_is_reported() -> None:
    """The error is passed on once; the other tasks run on until they are closed."""
    errors: list[BaseException] = []
    ended: list[str] = []

    async def failing() -> None:
        raise ValueError("the topic is gone")

    async def endless() -> None:
        try:
            await asyncio.Event().wait()
        finally:
            ended.append("endless")

    async def run() -> None:
        tasks = BackgroundTasks()
        tasks.start(failing(), errors.append)
        tasks.start(endless(), errors.append)
        await asyncio.sleep(0.01)
        assert [str(error) for error in errors] == ["the topic is gone"]
        assert ended == []
        await tasks.close()
        await asyncio.sleep(0.01)

    asyncio.run(run())
    assert ended == ["endless"]
    assert len(errors) == 1
