"""The transition table."""

from hypothesis import given
from hypothesis import strategies as st

from jobs.states import DECIDED, TRANSITIONS, UNDECIDED, State, sources

states = st.sampled_from(list(State))


def test_every_state_is_in_the_table() -> None:
    assert set(TRANSITIONS) == set(State)


@given(states, states)
def test_sources_are_the_states_that_lead_to_a_state(source: State, target: State) -> None:
    assert (source in sources(target)) == (target in TRANSITIONS[source])


@given(st.lists(states, max_size=8))
def test_no_transition_leaves_a_decided_state(walk: list[State]) -> None:
    # Given any walk that only takes steps of the table
    here = State.ACCEPTED
    path = [here]
    for target in walk:
        if target in TRANSITIONS[here]:
            here = target
            path.append(here)

    # I expect it to be decided at most once, at its very end
    assert all(state in UNDECIDED for state in path[:-1])
    assert len(path) == len(set(path))


def test_an_accepted_job_never_completes_without_running() -> None:
    assert State.COMPLETED not in TRANSITIONS[State.ACCEPTED]
    assert {State.COMPLETED, State.FAILED, State.CANCELLED} == DECIDED
