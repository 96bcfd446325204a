"""An asyncio program that embeds a server in its own task group, publishes into a room, and stops it by cancelling."""

import asyncio
from collections.abc import Callable

from vixws_anyio import Server


async def main(seconds: float = 60.0, port: int = 9090, told: Callable[[str], object] = print) -> None:
    """Serves for some seconds and tells the room `clock` the time that is left."""
    server = Server(port=port)
    listening = asyncio.Event()
    async with asyncio.TaskGroup() as tasks:
        serving = tasks.create_task(server.serve(ready=lambda _: listening.set()))
        await listening.wait()
        told(server.ws)
        ticks = round(seconds * 10)
        for left in range(ticks, 0, -1):
            await server.publish("clock", "clock.tick", {"left": left})
            await asyncio.sleep(0.1)
        serving.cancel()
    told("stopped")


if __name__ == "__main__":
    asyncio.run(main())
