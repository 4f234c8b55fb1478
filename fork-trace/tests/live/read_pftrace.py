"""Reads a trace by Perfetto's own definitions, and prints what it says, as JSON."""

import json
import sys

from google.protobuf.unknown_fields import UnknownFieldSet
from perfetto.protos.perfetto.trace import perfetto_trace_pb2 as perfetto


def known(message):
    """Fails where a message has a field that Perfetto does not know."""
    assert not len(UnknownFieldSet(message)), message
    for _, value in message.ListFields():
        for part in value if hasattr(value, "__iter__") else [value]:
            if hasattr(part, "ListFields"):
                known(part)


trace = perfetto.Trace()
with open(sys.argv[1], "rb") as file:
    trace.ParseFromString(file.read())
known(trace)

Event = perfetto.TrackEvent
threads, counters, open_slices = {}, {}, {}
calls, arrows, totals, realtime = [], {}, {}, None
for packet in trace.packet:
    if packet.HasField("clock_snapshot"):
        snapshot = packet.clock_snapshot
        assert snapshot.primary_trace_clock == perfetto.BUILTIN_CLOCK_MONOTONIC
        clocks = {clock.clock_id: clock.timestamp for clock in snapshot.clocks}
        assert perfetto.BUILTIN_CLOCK_REALTIME in clocks
        realtime = clocks[perfetto.BUILTIN_CLOCK_MONOTONIC]
    if packet.HasField("track_descriptor"):
        track = packet.track_descriptor
        if track.HasField("thread"):
            threads[track.uuid] = track.thread.tid
        if track.HasField("counter"):
            counters[track.uuid] = track.name
    if not packet.HasField("track_event"):
        continue
    assert packet.timestamp_clock_id == perfetto.BUILTIN_CLOCK_MONOTONIC
    event = packet.track_event
    stack = open_slices.setdefault(event.track_uuid, [])
    if event.type == Event.TYPE_SLICE_BEGIN:
        category = event.categories[0]
        call = {
            "name": event.name,
            "tid": threads.get(event.track_uuid),
            "begin": packet.timestamp,
            "stages": 0,
        }
        if category == "fork":
            assert not stack
            calls.append(call)
            arrows[event.flow_ids[0]] = call
        if category == "stage":
            stack[0]["stages"] += 1
        stack.append(call)
    if event.type == Event.TYPE_SLICE_END:
        stack.pop()["end"] = packet.timestamp
    if event.type == Event.TYPE_COUNTER:
        name = counters[event.track_uuid]
        totals[name] = totals.get(name, 0) + event.counter_value
    for arrow in event.terminating_flow_ids:
        arrows[arrow]["child"] = threads[event.track_uuid]
assert not any(open_slices.values())
print(
    json.dumps(
        {
            "calls": calls,
            "forks": totals["forks per second"],
            "failures": totals["failures per second"],
            "realtime": realtime,
        }
    )
)
