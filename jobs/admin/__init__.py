"""Read-only admin pages of jobs, nodes and workers, without secrets.

Fields are named one by one, so a new field of a model is hidden until it is added here.
"""

from django.contrib import admin

from jobs.admin import node_pages
from jobs.admin.job_page import JobPage
from jobs.admin.job_table import JobTable
from jobs.models import Job

__all__ = ["JobAdmin", "node_pages"]


@admin.register(Job)
class JobAdmin(JobTable, JobPage):
    """The list of jobs, and the page of each."""
