"""Fills the database of an installation with finished jobs."""

from datetime import UTC, datetime
from typing import Final

import psycopg

from tests.helpers.service_processes import Service

NODES: Final = 4
FIRST: Final = datetime(2026, 1, 1, tzinfo=UTC)  # when the oldest job was created; then one a second

# A copy of a job that was posted, with these columns changed. In any thousand jobs, each filter finds the same number.
_CHANGED: Final = {
    "uuid": """(lpad(to_hex((extract(epoch FROM made) * 1000)::bigint), 12, '0') || '7' || substr(md5(n::text), 1, 3) || '8'
        || substr(md5(n::text), 4, 15))::uuid""",
    "id": "'job-' || n",
    "image": "'registry.example/image-' || (n / 10 % 10)",
    "meta": """jsonb_build_object('team', 'team-' || (n / 100 % 10), 'kind', 'kind-' || (n / 10 % 10), 'run', 'run-' || n)""",
    "status": "CASE WHEN n % 10 = 3 THEN 'failed' ELSE 'completed' END",
    "reason": "CASE WHEN n % 10 = 3 THEN 'exit_code' ELSE '' END",
    "exit_code": "CASE WHEN n % 10 = 3 THEN 1 ELSE 0 END",
    "node_id": f"(SELECT id FROM jobs_node WHERE name = 'node-' || (n % {NODES}))",
    **dict.fromkeys(("created_at", "started_at", "finished_at", "exited_at", "completed_at"), "made"),
}
_COLUMNS: Final = "SELECT column_name FROM information_schema.columns WHERE table_name = 'jobs_job' AND is_generated = 'NEVER'"


def fill(service: Service, jobs: int, *more: str) -> None:
    """Store this many finished jobs, and run the statements that store more."""
    nodes = f"from jobs.models import Node; [Node.objects.create(name=f'node-{{n}}') for n in range({NODES})]"
    service.manage("shell", "-c", nodes, env=service.environment)
    service.post_job(id="template")
    columns = [name for (name,) in service.query(_COLUMNS)]
    values = [_CHANGED.get(name, f'template."{name}"') for name in columns]
    numbers = f"SELECT n, timestamptz '{FIRST}' + n * interval '1 second' AS made FROM generate_series(0, {jobs - 1}) n"
    names = ", ".join(f'"{name}"' for name in columns)
    insert = f"INSERT INTO jobs_job ({names}) SELECT {', '.join(values)} FROM ({numbers}) numbers, jobs_job template"
    with psycopg.connect(service.database_url, autocommit=True) as connection:
        connection.execute(insert.encode())
        connection.execute("DELETE FROM jobs_job WHERE id = 'template'")
        for statement in more:
            connection.execute(statement.encode())
        connection.execute("VACUUM (ANALYZE)")  # so that the server has nothing else to do later
        connection.execute("CHECKPOINT")
