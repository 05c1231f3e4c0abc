"""Measure how long after its commit an event arrives, at a steady rate of events."""

from tests.bench.measuring.event_publisher import publisher
from tests.bench.measuring.event_receiver import EventReceiver
from tests.bench.measuring.installation import installation
from tests.bench.measuring.results import Row, percentile, report
from tests.helpers.service_processes import Service

RATES = (50, 200)  # events a second
JOBS = 100
SECONDS = 15
MAX_SECONDS = 120


def main() -> None:
    rows = []
    with EventReceiver() as receiver, installation("deliver", "relay") as service:
        latencies(service, receiver, RATES[0], SECONDS // 5)
        for rate in RATES:
            milliseconds, published = latencies(service, receiver, rate, SECONDS)
            rows.append(
                Row(
                    measure=f"delivery latency p95, commit to receipt, {rate} events/s",
                    value=percentile(milliseconds, 95),
                    unit="ms",
                    detail=f"p50 {percentile(milliseconds, 50):.0f} ms, published {published:.0f}/s",
                    target="< 50",
                )
            )
    report(f"Events of {JOBS} jobs, a transaction each, for {SECONDS} s", rows)


def latencies(service: Service, receiver: EventReceiver, rate: int, seconds: int) -> tuple[list[float], float]:
    """Return the milliseconds from commit to receipt of each event, and how many were published per second."""
    receiver.clear()
    events = rate * seconds // JOBS or 1
    with publisher(service, receiver.url, jobs=JOBS, events=events, rate=rate) as publishing:
        publishing.start()
        commits = publishing.commits()
        arrivals = receiver.wait_for_count(len(commits), MAX_SECONDS)
    times = commits.values()
    rate_reached = len(commits) / (max(times) - min(times))
    return [(one.time - commits[one.job, one.sequence]) * 1000 for one in arrivals], rate_reached


if __name__ == "__main__":
    main()
