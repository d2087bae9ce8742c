"""The filter of system calls that a kernel of the jail runs under: what a lab never needs is refused.

A program for Linux's classic BPF machine, assembled here with `struct`: thirty lines instead of libseccomp, a
C library that pip cannot bring. bubblewrap's own `--seccomp` would come too early: whoever makes a kernel's
space still has to mount and to unshare, and the kernel to join it.

Refusing is an error number, never the death of the process, so that honest libraries take their other way:
ENOSYS where they look for an older call then (glibc's clone3), EPERM elsewhere. Other kinds of sockets (alg,
packet; vsock, which reaches past a network namespace) are refused as unknown.
Formats and numbers: Linux's linux/seccomp.h, linux/audit.h, asm/unistd_64.h and asm-generic/unistd.h.
"""

from __future__ import annotations

import errno
import platform
import struct

ARCHITECTURES = {"x86_64": 0xC000003E, "aarch64": 0xC00000B7}  # as platform.machine() and as the kernel says
LAST = 450  # of the calls known here (Linux 5.17); later ones, and those of x86's x32, count as absent
ABSENT = {  # name: number on x86_64, on aarch64
    **dict(memfd_create=(319, 279), memfd_secret=(447, 447), userfaultfd=(323, 282)),
    **dict(io_uring_setup=(425, 425), io_uring_enter=(426, 426), io_uring_register=(427, 427)),
    **dict(clone3=(435, 435)),  # its flags lie in memory, where no filter can read them
}
REFUSED = {
    # what outlives a kernel, or is shared by all processes of a user
    **dict(add_key=(248, 217), request_key=(249, 218), keyctl=(250, 219)),
    **dict(shmget=(29, 194), shmctl=(31, 195), shmat=(30, 196), shmdt=(67, 197)),
    **dict(msgget=(68, 186), msgctl=(71, 187), msgrcv=(70, 188), msgsnd=(69, 189)),
    **dict(semget=(64, 190), semctl=(66, 191), semop=(65, 193), semtimedop=(220, 192)),
    **dict(mq_open=(240, 180), mq_unlink=(241, 181)),
    # namespaces and mounts, with which a user gets files of unlimited size
    **dict(unshare=(272, 97), setns=(308, 268), chroot=(161, 51), pivot_root=(155, 41)),
    **dict(mount=(165, 40), umount2=(166, 39), move_mount=(429, 429), open_tree=(428, 428)),
    **dict(fsopen=(430, 430), fsconfig=(431, 431), fsmount=(432, 432), fspick=(433, 433)),
    **dict(mount_setattr=(442, 442), swapon=(167, 224), swapoff=(168, 225)),
    **dict(quotactl=(179, 60), quotactl_fd=(443, 443)),
    # other processes
    **dict(ptrace=(101, 117), process_vm_readv=(310, 270), process_vm_writev=(311, 271)),
    **dict(process_madvise=(440, 440), pidfd_getfd=(438, 438), kcmp=(312, 272)),
    # the kernel's own machinery, with a history of faults
    **dict(bpf=(321, 280), perf_event_open=(298, 241), fanotify_init=(300, 262), fanotify_mark=(301, 263)),
    **dict(name_to_handle_at=(303, 264), open_by_handle_at=(304, 265), lookup_dcookie=(212, 18)),
    **dict(init_module=(175, 105), finit_module=(313, 273), delete_module=(176, 106)),
    **dict(kexec_load=(246, 104), kexec_file_load=(320, 294), reboot=(169, 142), acct=(163, 89)),
    **dict(syslog=(103, 116), vhangup=(153, 58), nfsservctl=(180, 42), personality=(135, 92)),
    **dict(settimeofday=(164, 170), clock_settime=(227, 112), clock_adjtime=(305, 266)),
    **dict(adjtimex=(159, 171), iopl=(172, None), ioperm=(173, None), modify_ldt=(154, None)),
    **dict(uselib=(134, None)),
}
CLONE, SOCKET, SETSOCKOPT = (56, 220), (41, 198), (54, 208)
NAMESPACES = 0x7E020000  # the flags of clone that make a new one of any kind
FAMILIES = (1, 2, 10, 16)  # unix, inet, inet6, netlink (zmq asks it for interfaces), all of the kernel's own
SOL_SOCKET, BUFFERS = 1, (7, 8, 32, 33)  # SO_SNDBUF, SO_RCVBUF, and both with FORCE
NUMBER, ARCHITECTURE, ARGUMENTS = 0, 4, (16, 24, 32)  # offsets in struct seccomp_data, little-endian
LOAD, EQUAL, GREATER, ANY_BIT, RETURN = 0x20, 0x15, 0x25, 0x45, 0x06  # instructions
ALLOW, ERROR = 0x7FFF0000, 0x00050000


def program(machine: str = "") -> bytes:
    """The filter for a kind of processor, as an array of Linux's `struct sock_filter`.

    `machine` is as platform.machine() says, by default this computer's; ValueError for one that is not known.
    """
    machine = machine or platform.machine()
    if machine not in ARCHITECTURES:
        known = " and ".join(ARCHITECTURES)
        raise ValueError(f"the jail's filter of system calls is for {known}, this computer is {machine}.")
    column = list(ARCHITECTURES).index(machine)
    load_number = _do(LOAD, NUMBER)
    code = [_do(LOAD, ARCHITECTURE), _jump(EQUAL, ARCHITECTURES[machine], 1, 0), _error(errno.ENOSYS)]
    code += [load_number, _jump(GREATER, LAST, 0, 1), _error(errno.ENOSYS)]
    for number, error in denied(machine).values():
        code += [_jump(EQUAL, number, 0, 1), _error(error)]
    code += _only(
        CLONE[column], [_do(LOAD, ARGUMENTS[0]), _jump(ANY_BIT, NAMESPACES, 0, 1), _error(errno.EPERM)]
    )
    families = [_jump(EQUAL, family, len(FAMILIES) - i, 0) for i, family in enumerate(FAMILIES)]
    code += _only(SOCKET[column], [_do(LOAD, ARGUMENTS[0]), *families, _error(errno.EAFNOSUPPORT)])
    # a socket keeps the size it was born with, which jail.py counts; the call says that all went well
    sizes = [
        _jump(EQUAL, option, len(BUFFERS) - 1 - i, i == len(BUFFERS) - 1) for i, option in enumerate(BUFFERS)
    ]
    level = _jump(EQUAL, SOL_SOCKET, 0, len(sizes) + 2)
    code += _only(
        SETSOCKOPT[column], [_do(LOAD, ARGUMENTS[1]), level, _do(LOAD, ARGUMENTS[2]), *sizes, _error(0)]
    )
    return b"".join([*code, _do(RETURN, ALLOW)])


def denied(machine: str = "") -> dict[str, tuple[int, int]]:
    """The calls that are refused whatever they are given: name -> number on that processor, error number."""
    column = list(ARCHITECTURES).index(machine or platform.machine())
    return {
        name: (numbers[column], code)
        for calls, code in ((ABSENT, errno.ENOSYS), (REFUSED, errno.EPERM))
        for name, numbers in calls.items()
        if numbers[column] is not None
    }


def _only(number: int, code: list[bytes]) -> list[bytes]:
    """Instructions for one system call; the others jump over them, with their number loaded."""
    return [_jump(EQUAL, number, 0, len(code)), *code, _do(LOAD, NUMBER)]


def _do(instruction: int, value: int) -> bytes:
    return struct.pack("<HBBI", instruction, 0, 0, value)


def _jump(instruction: int, value: int, if_so: int, if_not: int) -> bytes:
    """Skip that many instructions, at most 255."""
    return struct.pack("<HBBI", instruction, if_so, if_not, value)


def _error(number: int) -> bytes:
    return _do(RETURN, ERROR | number)
