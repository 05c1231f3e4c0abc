"""Every period and time-out of the service, in seconds, with its reason.

There is a class for each part that waits. A part gets its intervals as an argument, so tests pass in shorter ones and patch
nothing. Those that operators can change are in `config.configuration` instead (docs/configuration.md).
"""

from dataclasses import dataclass

DAY = 24 * 3600.0


@dataclass(frozen=True, slots=True, kw_only=True)
class WorkerIntervals:
    """A worker process: heartbeats, the watch over its jobs, its stop."""

    tick: float = 1.0  # between two checks of the jobs it owns: a cancel may be noticed this late
    idle_tick: float = 20.0  # between two checks of the jobs it owns while no thread drives any
    heartbeat: float = 5.0  # between two UPDATEs of its counter: one per process, however many jobs it runs
    observe: float = 3.5  # between two looks at the heartbeats of all workers; their lock files are checked at each tick
    dead_after: float = 15.0  # without a heartbeat: three periods, so that one slow UPDATE does no harm
    # Without a check: what an observer saw before such a gap proves nothing, because the database may have been away. An
    # observer reads every four ticks; this is two such reads and a tick, so that one slow or missed read does not start the
    # observation over. After a shorter outage a worker still has 6 s until `dead_after`: more than `database_answer`, so it can
    # connect again and move its counter.
    observer_restarts_after: float = 9.0
    healthy_node: float = 30.0  # without a heartbeat: then a node is shown as unhealthy, and gets no hints
    database_answer: float = 5.0  # then it tries another connection, before other processes declare this worker dead
    hand_over: float = 3.0  # at a stop: then it no longer waits for engine calls
    start_retry: float = 1.0  # between two tries to start while the database or the engine does not answer
    proven_harmless: float = 5.0  # after the start: a job that kills its worker does so as soon as the worker reads its state
    trial: float = 30.0  # for a suspect before the next one may be claimed: its image may have to be pulled


@dataclass(frozen=True, slots=True, kw_only=True)
class RunIntervals:
    """One job in a worker."""

    retries: tuple[float, ...] = (
        0.2,
        0.5,
        1.0,
        2.0,
        5.0,
    )  # pauses while the engine or the database does not answer; the last one repeats
    last_look: float = 3.0  # for the engine to answer whether a process whose time is up has ended by itself
    stable: float = 60.0  # of watching a process without an error: then failures are counted from zero
    progress: float = 2.0  # between two updates of the progress of a download
    progress_retry: float = 30.0  # after an update that failed
    lock_check: float = 0.1  # how often a run that waits for a lock checks whether it was interrupted
    registry_lookup: float = 10.0  # to resolve a registry's name before a pull


@dataclass(frozen=True, slots=True, kw_only=True)
class ClaimIntervals:
    """The choice of the job that starts next."""

    passed_over: float = 300.0  # since its creation: then a job holds back younger ones on the nodes that are large enough for it
    probe_lease: float = 60.0  # for the job that tests whether a node starts containers again: it may have to pull its image
    start_pause: float = 5.0  # after the first failed start; doubles with each one after it
    start_pause_max: float = 60.0


@dataclass(frozen=True, slots=True, kw_only=True)
class SandboxIntervals:
    """Network sandboxes of a worker."""

    lifetime: float = 900.0  # then one is replaced: it keeps the name servers that its host had at its start
    resize: float = 60.0  # between two looks at how many were never used
    wait: float = 4.0  # for the next one: on a busy engine sooner than a network of its own, which takes 0.2 s of CPU
    turnover: float = 1.0  # since the last one was given back: then the others are in use for longer, and no job waits
    retry: float = 1.0  # after a failed call to the engine; doubles each time
    retry_max: float = 60.0


@dataclass(frozen=True, slots=True, kw_only=True)
class EngineIntervals:
    """Calls to a container engine."""

    connect: float = 10.0
    short_call: float = 60.0  # without a byte, for calls that only read
    long_call: float = 300.0  # without a byte, for calls that make the engine work: create, start, remove, unpack
    local_check: float = 10.0  # to ask the engine's socket which process listens on it
    idle_log: float = 0.25  # without a byte of a followed log; then the reader commits what it has
    keep_alive: float = 30.0  # without a byte of a stream over TCP, before the kernel probes whether the host is still there
    keep_alive_probe: float = 10.0  # between two probes
    holder_checks: tuple[float, ...] = (0.05, 0.1, 0.2, 0.4)  # between checks whether another worker has installed the init
    superseded_init: float = 7 * DAY  # before another release's init is removed: its workers may still use it
    sandbox_answer: float = 5.0  # for a sandbox to say that it is clean
    disk_measurement: float = 60.0  # for the files of one container; a million take a few seconds
    statistics_delay: float = 0.5  # since a process was seen running: then its statistics are followed, unless they are kept
    statistics_answer: float = 5.0  # without a byte, to open their stream
    statistics_pace: float = 1 / 16  # between the openings of two streams
    statistics_retry: float = 10.0  # after a stream could not be opened, or has broken off
    firewall: float = 10.0  # for a program that changes the firewall or says what it has
    cluster_watch: float = 270.0  # for an API server to end a watch, which is opened again at once
    cluster_watch_silence: float = 150.0  # without a byte: an API server writes one about once a minute
    cluster_watch_retry: float = 0.1  # before a watch that was cut off is opened again; doubles each time
    cluster_watch_retry_max: float = 2.0
    cluster_stop: float = 60.0  # after the grace, for the node to end the processes of a container
    cluster_withdrawal: int = 1  # grace of a pod whose start is taken back: with none its node would report nothing
    cluster_kill: float = 10.0  # after SIGKILL from the helper of a pod; then its node has to end it
    cluster_patience: float = 2.0  # in a state that every pod passes, before a job says that it waits for it
    cluster_usage: float = 15.0  # between two questions what all pods use: a metrics server measures them as often
    cluster_usage_retry: float = 600.0  # if the cluster does not measure
    cluster_log_file: float = 1.0  # between two looks whether a node has begun a new file for a log
    cluster_log: float = 300.0  # for a node that has restarted to send the rest of a log; a cluster waits as long for a lost node
    cluster_log_retry: float = 1.0  # before it is asked again
    cluster_clock_slack: float = 10.0  # by which a node's clock may be set back without a line of a log being missed
    cluster_deadline: float = 60.0  # after a pod should have been stopped, for its node to stop it as a last resort
    cluster_helper: float = 0.02  # before another connection to the helper of a pod that does not listen yet
    cluster_nodes: float = 60.0  # between two looks at what the nodes of a cluster have
    watch: float = 5.0  # between two looks whether the engine answers, and whether the firewall's rules are in place
    watch_retry: float = 1.0  # between them while it does not
    watch_valid: float = 10.0  # since the last answer: then the engine counts as not answering


@dataclass(frozen=True, slots=True, kw_only=True)
class DiskIntervals:
    """The watch over what jobs write to the engine's disk."""

    look: float = 0.5  # between two looks at how full it is
    oldest: float = 300.0  # since a container was last measured: then it is measured again if anything was written
    retry: float = 5.0  # after a container could not be measured
    unheeded: float = 3.0  # for the owner of a job to decide it: then its process is killed all the same
    kill: float = 10.0  # for the engine to do that, before other containers are looked at again
    relief: float = 30.0  # for the space of an ended job to be freed, before another one is ended


@dataclass(frozen=True, slots=True, kw_only=True)
class LogIntervals:
    """Reading the log of a job."""

    batch: float = 0.25  # how long a line may wait for others before it is sent
    patient_batch: float = 1.0  # … while the callback is far behind: then it gets fewer and larger events
    exit_check: float = 0.5  # between two checks whether the process of a busy log has ended
    backlog_check: float = 0.25  # before a full backlog is checked again; doubles each time
    backlog_check_max: float = 4.0
    rest: float = 60.0  # for a callback to keep up with the rest of an ended process's log: `exit` comes after it
    rest_stall: float = 2.0  # with a full backlog: then the callback does not keep up


@dataclass(frozen=True, slots=True, kw_only=True)
class TransferIntervals:
    """Downloads and uploads of a job's files; docs/usage.md promises `read`."""

    connect: float = 10.0
    read: float = 60.0  # without a byte
    retry: float = 1.0  # before the second attempt; doubles each time, and up to half is added at random
    # An engine locks a container while a file is written to it. A dockerd that stops waits for that, and if the worker freezes
    # meanwhile, no other can take the container over.
    direct: float = 30.0  # a download that is expected to take longer is not written while it arrives
    direct_max: float = 60.0  # of waiting for its server in all; then it has become too slow for that
    direct_silence: float = 5.0  # without a byte


@dataclass(frozen=True, slots=True, kw_only=True)
class JobIntervals:
    """All of the above: what a worker process passes on to its parts."""

    worker: WorkerIntervals = WorkerIntervals()
    run: RunIntervals = RunIntervals()
    claim: ClaimIntervals = ClaimIntervals()
    sandbox: SandboxIntervals = SandboxIntervals()
    engine: EngineIntervals = EngineIntervals()
    disk: DiskIntervals = DiskIntervals()
    log: LogIntervals = LogIntervals()
    transfer: TransferIntervals = TransferIntervals()


@dataclass(frozen=True, slots=True, kw_only=True)
class DeliveryIntervals:
    """Delivering events. docs/callbacks.md promises those up to `breaker_open_max`."""

    connect: float = 5.0
    answer: float = 15.0  # the whole attempt, connecting included
    lifetime: float = DAY  # of an event; one that is still undelivered then is dead
    retries: tuple[float, ...] = (1.0, 5.0, 30.0, 120.0, 600.0, 1800.0, 3600.0, 7200.0, 14400.0)  # before each; the last repeats
    retry_jitter: float = 0.2  # up to this fraction of a pause is added at random
    retry_after_max: float = DAY  # a longer `Retry-After` counts as this
    breaker_open: float = 30.0  # the first time; doubles each time after
    breaker_open_max: float = 600.0  # also of a throttle, whatever `Retry-After` says: many jobs may share the destination
    slow: float = 1.0  # an answer that takes longer is slow
    lease: float = 30.0  # of a stream, and of a breaker's probe: longer than an attempt can take
    run: float = 0.2  # then no further event of a run is sent before its results are recorded
    turn: float = 2.0  # then a thread goes on to another stream, if others wait
    thread_wait: tuple[float, float] = (2.0, 6.0)  # random, until a stream that found no free thread is due again
    look: float = 5.0  # at most, between two looks for due streams: hints may be lost, and the relay may be down
    gather: float = 0.003  # at most, that a result waits for others in flight to be recorded with it
    burst: float = 10.0  # of sending at the permitted rate: what a destination or an owner may get at once after a pause
    charge: float = 0.5  # of sending at the permitted rate: what a process has sent is charged when it is that much
    locked: float = 0.01  # before another try for a stream whose row is locked, mostly by a publisher that is about to commit
    database_retry: float = 1.0  # before the next try after the database failed
    stop: float = 3.0  # at a stop: then it no longer waits for answers


@dataclass(frozen=True, slots=True, kw_only=True)
class DestinationIntervals:
    """Keeping the rows of destinations."""

    touch: float = 3600.0  # how exactly the last use is recorded
    unused: float = DAY  # then the row is deleted


@dataclass(frozen=True, slots=True, kw_only=True)
class RelayIntervals:
    """Between two runs of each duty of the relay."""

    together: float = 0.5  # duties that are due within this time are done at once: one statement finds out for all of them
    due_streams: float = 1.0
    destinations_available: float = 1.0
    destinations_waiting: float = 5.0
    redeliveries: float = 1.0
    dead_workers: float = 1.0
    lost_nodes: float = 1.0
    job_hints: float = 5.0
    leftovers: float = 30.0
    leftover_grace: float = 30.0  # younger containers are left alone, because clocks differ
    retention: float = 10.0
    retention_batch: float = 1.0  # between two batches while there are more
    unused_destinations: float = 60.0
    ended_sessions: float = 3600.0
    samples: float = 60.0  # of nodes and breakers, for the charts
    samples_of_open_breakers: float = 20.0  # less than `DeliveryIntervals.breaker_open`: none that opens is missed
    old_samples: float = 3600.0
    samples_kept: float = 7 * 3600.0  # longer than `AdminIntervals.charts_show`
    unreadable_secrets: float = DAY  # who changes keys restarts the relay
    stop: float = 3.0  # at a stop: then it no longer waits for a duty that is still running


@dataclass(frozen=True, slots=True, kw_only=True)
class BrokerIntervals:
    """Redis and Dramatiq."""

    idle_check: float = 5.0  # between two looks of an idle consumer, for messages whose announcement was lost
    stop_check: float = 1.0  # between two checks of an idle consumer whether it is to stop
    busy_poll: float = 0.1  # between two looks while all threads are busy: an idle one is not announced
    thread_idle: float = 60.0  # then a thread ends
    listen: float = 5.0  # between two checks of a listener that hears nothing: is it to stop, does Redis still answer?
    ping: float = 5.0  # without a byte on a connection to Redis, before it is asked whether it still answers
    connect: float = 1.0
    answer: float = 1.0
    connection_wait: float = 2.0  # for a free connection of the pool
    retry: float = 1.0  # no message is sent for this long after one has failed
    hints: float = 0.05  # at least, between two looks for nodes that can run new jobs
    send: float = 5.0  # longer than one message can take: while one thread tries a broker that failed, the others skip it
    stop: float = 3.0  # for the threads of a stopping process


@dataclass(frozen=True, slots=True, kw_only=True)
class DatabaseIntervals:
    """PostgreSQL and SQLite. The server's own limits come first; ours are for a server that is gone or frozen."""

    statement: float = 15.0  # the longest statements delete a batch of old rows
    lock: float = 10.0
    idle_in_transaction: float = 15.0  # a frozen process must not hold rows that others need
    answer: float = 18.0  # `statement` and three seconds for the network
    connect: float = 5.0
    keepalive: float = 5.0  # before the first probe of an idle connection, and between probes
    unacknowledged: float = 15.0  # the kernel then gives up a server that acknowledges nothing
    pool_trust: float = 5.0  # since the last answer on a pooled connection: then it is checked before it is used
    pool_check: float = 3.0  # for a pooled connection to show that it still works
    pool_wait: float = 8.0  # for a connection of the pool
    pool_idle: float = 60.0  # an unused connection is then closed
    pool_reconnect: float = 5.0  # short, so that the next caller tries at once: the pool itself doubles its pauses
    sqlite_lock: float = 30.0


@dataclass(frozen=True, slots=True, kw_only=True)
class MetricsIntervals:
    """The metrics. Prometheus waits for an answer for 10 s."""

    retry: float = 5.0  # to create the file of a process, after a failure such as a full disk

    connect: float = 2.0  # to the database; for a name with several addresses, to each
    query: float = 2.0  # for each query. There are a few short ones
    fresh: float = 1.0  # what was read from the database is shown again for this long: several scrapers cost no more than one
    images: float = 300.0  # between two looks at which images are used most


@dataclass(frozen=True, slots=True, kw_only=True)
class EgressIntervals:
    """Outgoing HTTP; the time-outs of a request belong to its caller."""

    reuse: float = 2.0  # most servers keep idle connections for longer, and close none while a request is on its way
    public_url: float = 60.0  # between two looks at the addresses of PUBLIC_URL, while requests are sent
    public_url_retry: float = 5.0  # the same after a failure, as long as they are unknown: nothing public can be reached
    public_url_wait: float = 2.0  # for the first of them: a resolver that hangs must not hold up every request


@dataclass(frozen=True, slots=True, kw_only=True)
class EmbeddedIntervals:
    """The embedded service, which its parent process starts again when it has ended."""

    restart: float = 1.0  # before the next start if one has failed; doubles each time
    restart_max: float = 30.0


@dataclass(frozen=True, slots=True, kw_only=True)
class AdminIntervals:
    """What the admin's start page shows, and how often it looks."""

    counts: float = 10.0  # between two refreshes of what needs attention and of the counts; all pages of a process share one
    charts: float = 60.0  # the same for the charts
    charts_show: float = 6 * 3600.0
    charts_step: float = 60.0  # at least, for a bar: the history is read by the minute
    long_wait: float = 60.0  # since its creation: then a job that waits needs attention
    node_forgotten: float = DAY  # since its last heartbeat: then a node without jobs no longer needs attention


@dataclass(frozen=True, slots=True, kw_only=True)
class AccessIntervals:
    """API keys, namespaces and throttles."""

    note_use: float = 60.0  # between two UPDATEs of the time of a key's last use
    recheck_key: float = 1.0  # while an answer goes on, such as a stream of a log
    wrong_key: float = 3.0  # between two requests with a wrong key from an address, after the first 20
    job_of_key: float = 0.01  # between two jobs that are posted with a key, after the first 1000
    job_of_address: float = 0.005  # between two from an address, after the first 2000
    login_of_address: float = 6.0  # between two logins from an address, after the first 10
    login_of_account: float = 5.0  # between two logins to an account, after the first 30: an address alone must not use them up
    session: float = 12 * 3600.0  # since the login: then the admin asks for the password again
    limits: float = 2.0  # between two looks at the limits of namespaces: a new limit holds this late at most
    retry_undecided: float = 10.0  # for a client whose namespace has as many undecided jobs as it may have


@dataclass(frozen=True, slots=True, kw_only=True)
class WebIntervals:
    """The web server and its clients."""

    idle: float = 75.0  # more than the 60 s of common proxies: they close first, so no request meets a closed connection
    head: float = 15.0
    body: float = 45.0  # 1 MiB at 24 KB/s
    stall: float = 30.0  # in which a client reads nothing of its answer
    slow: float = 60.0  # for a whole answer; more for what the client has read
    unacknowledged: float = 60.0  # the kernel then gives up a client that acknowledges nothing of what it was sent
    linger: float = 30.0  # for a client to send the rest of a refused request and to read the answer
    stop: float = 2.0  # at a stop: for a request that may be on its way on an idle connection
    tick: float = 1.0  # how exactly these are kept
    watchdog: float = 60.0  # gunicorn restarts a process that has not reported for this long
    health_query: float = 3.0  # for each query of a health check: a probe must not wait longer
    health_proxy: float = 2.0  # to connect to EGRESS_PROXY
    poll: float = 0.02  # before a long poll's second look at the database; grows to `poll_max`
    poll_max: float = 0.1
    follow: float = 0.2  # between two looks for new lines of all logs that are followed
    stream_comment: float = 15.0  # without an event of a stream: then a comment keeps proxies from closing the connection
    retry_stream: float = 1.0  # before a client reconnects to a stream; the browsers' own pause is 3 s
    retry_busy: float = 1.0  # `Retry-After` while the server has too many requests
    retry_unavailable: float = 2.0  # `Retry-After` while the database is unreachable
    log_poll: float = 2.0  # how often the page of a running job asks for more of its log
    state_poll: float = 5.0  # … and for its state and events
    hsts: float = 365 * DAY  # browsers then use HTTPS only


@dataclass(frozen=True, slots=True, kw_only=True)
class CommandIntervals:
    """What commands of `manage.py` say while they work."""

    display: float = 0.2  # between two changes of a line on a terminal
    progress: float = 10.0  # between two lines elsewhere


@dataclass(frozen=True, slots=True, kw_only=True)
class ClientIntervals:
    """The command line `bin/run`."""

    service_connect: float = 10.0
    service_answer: float = 15.0  # without a byte, beside the time that a request asks the service to wait
    service_blip: float = 1.0  # a service that is back within this time is not reported as away
    service_away: float = 600.0  # then the client gives up; a deployment takes less
    service_retry: float = 0.25  # before the second attempt; doubles each time
    service_retry_max: float = 5.0
    long_poll: float = 25.0  # for a line of the log or the end of the job: some proxies end a request after 30 s
    waiting_look: float = 1.0  # between two looks at what an accepted job waits for
    line_feed: float = 0.2  # without a further line: then the service is asked whether the last one has a line feed
    early_answer: float = 0.5  # before the next request to a service that is too busy to wait
    outputs_look: float = 0.1  # before the second look whether all outputs are handled; doubles each time
    outputs_look_max: float = 2.0
    upload_silence: float = 60.0  # without a byte of an output that the service sends to this machine
    upload_stop: float = 0.05  # the longest that the client's end waits for the server of its outputs
