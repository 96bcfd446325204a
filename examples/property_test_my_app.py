"""Property tests of an application: Hypothesis makes up stories, and a simulated world plays them. Run it with pytest.

Where one fails, what is printed is the shortest story that does, and which handler did what for which client.
"""

from hypothesis import given, settings
from hypothesis import strategies as st

from vixws_anyio import Server, Session
from vixws_core import Refused
from vixws_core.testing import Faults, World
from vixws_core.testing.story import Action, play
from vixws_core.testing.strategies import faults, stories


def build(server: Server) -> None:
    """The application: an auction, whose bids are stored for everybody to see."""

    @server.on("bid")
    def bid(session: Session, payload: dict[str, int]) -> None:
        amount = payload.get("amount", 0)
        if amount <= 0:
            raise Refused("expected an amount above 0")
        server.broadcast_room_json("auction", "bid", {"amount": amount}, session=session)


BIDS = {"bid": st.fixed_dictionaries({}, optional={"amount": st.integers(-5, 99)})}


@settings(max_examples=50, deadline=None)
@given(st.integers(0, 999), faults(), stories(clients=3, rooms=["auction"], sends=BIDS))
def test_no_bid_of_nothing_is_ever_stored(seed: int, rates: Faults, story: list[Action]) -> None:
    """Whatever breaks: nobody bids nothing, and whoever is in the room sees every bid once, in order."""
    world = World(seed, build=build, clients=3, faults=rates)  # `settle` judges the order, and what handlers raise.
    play(world, story)

    assert all(row.payload["amount"] > 0 for row in world.truth.rows.get("auction", []))
