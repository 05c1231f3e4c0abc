"""Run a program that can open no netlink socket: python no_netlink.py PROGRAM ARGUMENT…

Through netlink (netlink(7)), Chromium notices networks that come and go, as those of other tests' jobs do. It then ends all its
requests. Without netlink it takes the network for unchanged. A filter of system calls (seccomp(2)) refuses such sockets.
"""

import ctypes
import os
import struct
import sys
from errno import EAFNOSUPPORT
from socket import AF_NETLINK
from typing import Final

SOCKET: Final = {"x86_64": 41, "aarch64": 198}  # the number of the system call socket(2)
PR_SET_SECCOMP, PR_SET_NO_NEW_PRIVS, SECCOMP_MODE_FILTER = 22, 38, 2  # prctl(2)
LOAD, JUMP_IF_EQUAL, RETURN = 0x20, 0x15, 0x06  # instructions of the filter: BPF_LD|BPF_W|BPF_ABS, BPF_JMP|BPF_JEQ, BPF_RET
NUMBER, FIRST_ARGUMENT = 0, 16  # where they are in a filter's input (struct seccomp_data)
ALLOW, ERROR = 0x7FFF0000, 0x00050000


class Program(ctypes.Structure):
    """A filter of system calls (struct sock_fprog)."""

    _fields_ = (("length", ctypes.c_ushort), ("instructions", ctypes.c_void_p))


def refuse_netlink(socket_call: int) -> None:
    """Refuse sockets of the family AF_NETLINK to this process from now on, and to the programs that it runs."""
    filter_ = [
        (LOAD, 0, 0, NUMBER),
        (JUMP_IF_EQUAL, 0, 3, socket_call),
        (LOAD, 0, 0, FIRST_ARGUMENT),
        (JUMP_IF_EQUAL, 0, 1, AF_NETLINK),
        (RETURN, 0, 0, ERROR | EAFNOSUPPORT),
        (RETURN, 0, 0, ALLOW),
    ]
    instructions = ctypes.create_string_buffer(b"".join(struct.pack("HBBI", *instruction) for instruction in filter_))
    program = Program(len(filter_), ctypes.addressof(instructions))
    prctl = ctypes.CDLL(None, use_errno=True).prctl
    for arguments in ((PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0), (PR_SET_SECCOMP, SECCOMP_MODE_FILTER, ctypes.byref(program), 0, 0)):
        if prctl(*arguments):
            raise OSError(ctypes.get_errno(), "prctl")


if __name__ == "__main__":
    if os.uname().machine in SOCKET:
        refuse_netlink(SOCKET[os.uname().machine])
    os.execvp(sys.argv[1], sys.argv[1:])  # noqa: S606 - the arguments are the command of a test
