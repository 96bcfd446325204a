"""A trio program that embeds a server in its own nursery, publishes into a room, and stops it by cancelling."""

from collections.abc import Callable

import trio

from vixws_anyio import Server


async def main(seconds: float = 60.0, port: int = 9090, told: Callable[[str], object] = print) -> None:
    """Serves for some seconds and tells the room `clock` the time that is left."""
    server = Server(port=port)
    async with trio.open_nursery() as nursery:
        await nursery.start(lambda task_status: server.serve(task_status=task_status))
        told(server.ws)
        for left in range(round(seconds * 10), 0, -1):
            await server.publish("clock", "clock.tick", {"left": left})
            await trio.sleep(0.1)
        nursery.cancel_scope.cancel()
    told("stopped")


if __name__ == "__main__":
    trio.run(main)
