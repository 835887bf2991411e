"""Hypothesis strategies for the wire core."""

from hypothesis import strategies as st

from holdfast.protocol.awaiting import Awaiting, Combinator, Key, Outcome
from holdfast.protocol.frames import Frame
from holdfast.protocol.ids import InvocationId
from holdfast.protocol.messages import RESULTS, MessageType

uint32 = st.integers(0, 2**32 - 1)
uint64 = st.integers(0, 2**64 - 1)
text = st.text(st.characters(exclude_categories=["Cs"]), max_size=40)  # surrogates are not UTF-8
contents = st.binary(max_size=300)
frames = st.builds(Frame, st.integers(0, 0xFFFF), st.binary(max_size=40))
invocations = st.binary(min_size=24, max_size=24).map(InvocationId.from_raw)
known_types = st.sampled_from(MessageType).map(int)
value_notifications = st.sampled_from(
    sorted(kind for kind, results in RESULTS.items() if "value" in results and kind != MessageType.SIGNAL_NOTIFICATION)
).map(int)

_completions = st.integers(1, 4)
_signals = st.sampled_from([1, 17, 18])
_names = st.sampled_from(["a", "b"])


def _node(children: st.SearchStrategy[tuple[Awaiting, ...]]) -> st.SearchStrategy[Awaiting]:
    return st.builds(
        Awaiting,
        st.lists(_completions, max_size=3).map(tuple),
        st.lists(_signals, max_size=2).map(tuple),
        st.lists(_names, max_size=1).map(tuple),
        children,
        st.sampled_from(Combinator),
    )


trees = st.recursive(_node(st.just(())), lambda node: _node(st.lists(node, max_size=3).map(tuple)), max_leaves=8)
keys: st.SearchStrategy[Key] = st.one_of(
    st.tuples(st.just("c"), _completions), st.tuples(st.just("s"), _signals), st.tuples(st.just("n"), _names)
)
arrivals = st.lists(
    st.tuples(keys, st.sampled_from([Outcome.SUCCEEDED, Outcome.FAILED])),
    unique_by=lambda arrival: arrival[0],
)
