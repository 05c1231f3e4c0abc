"""Files of jobs on a cluster: a small program of ours in the pod, the mover, exchanges them with the worker over HTTP.

A pod has it only if its job has inputs or outputs. See docs/adr/0033-files-of-pods.md.
"""

from jobs.engine.kubernetes.files.mover_program import ARCHITECTURES, config_map
from jobs.engine.kubernetes.files.pod_files import FilesOfPod, PodFiles
from jobs.engine.kubernetes.files.pod_parts import INPUTS, OUTPUTS, WORKSPACE_VOLUME, Helper, PodParts, pod_parts
from jobs.engine.kubernetes.files.tokens import Tokens, new_tokens, secret, tokens_in

__all__ = [
    "ARCHITECTURES",
    "INPUTS",
    "OUTPUTS",
    "WORKSPACE_VOLUME",
    "FilesOfPod",
    "Helper",
    "PodFiles",
    "PodParts",
    "Tokens",
    "config_map",
    "new_tokens",
    "pod_parts",
    "secret",
    "tokens_in",
]
