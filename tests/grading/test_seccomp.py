"""The filter of system calls, run by a machine of its own: what it lets through on either processor."""

from __future__ import annotations

import errno
import struct

import pytest

from labkit.grading import seccomp

ALLOWED, EPERM, ENOSYS = "allowed", errno.EPERM, errno.ENOSYS
X86, ARM, I386 = 0xC000003E, 0xC00000B7, 0x40000003


def verdict(machine: str, number: int, *arguments: int, architecture: int | None = None):
    """What Linux would do with a call: ALLOWED, or the number of the error."""
    native = {"x86_64": X86, "aarch64": ARM}[machine]
    data = struct.pack("<IIQ6Q", number, architecture or native, 0, *(*arguments, *[0] * 6)[:6])
    code = list(struct.iter_unpack("<HBBI", seccomp.program(machine)))
    place = loaded = 0
    while True:
        instruction, if_so, if_not, value = code[place]
        place += 1
        if instruction == seccomp.LOAD:
            loaded = struct.unpack_from("<I", data, value)[0]
        elif instruction == seccomp.RETURN:
            return ALLOWED if value == 0x7FFF0000 else value & 0xFFFF
        else:
            holds = {
                seccomp.EQUAL: loaded == value,
                seccomp.GREATER: loaded > value,
                seccomp.ANY_BIT: bool(loaded & value),
            }[instruction]
            place += if_so if holds else if_not


@pytest.mark.parametrize("machine, read, mmap, openat", [("x86_64", 0, 9, 257), ("aarch64", 63, 222, 56)])
def test_what_every_program_needs_is_allowed(machine, read, mmap, openat):
    assert {verdict(machine, number) for number in (read, mmap, openat)} == {ALLOWED}


@pytest.mark.parametrize("machine", seccomp.ARCHITECTURES)
def test_every_call_that_is_named_is_refused(machine):
    for name, (number, error) in seccomp.denied(machine).items():
        assert verdict(machine, number) == error, name
    assert seccomp.denied(machine)["memfd_create"][1] == ENOSYS
    assert seccomp.denied(machine)["keyctl"][1] == EPERM


@pytest.mark.parametrize("machine, number", [("x86_64", 0), ("aarch64", 63)])
def test_calls_of_another_architecture_or_a_later_linux_are_absent(machine, number):
    assert verdict(machine, number, architecture=I386) == ENOSYS
    assert verdict(machine, 0x40000000 + number) == ENOSYS  # x32
    assert verdict(machine, seccomp.LAST + 1) == ENOSYS
    assert verdict(machine, seccomp.LAST) == ALLOWED


@pytest.mark.parametrize("machine, clone", [("x86_64", 56), ("aarch64", 220)])
def test_clone_makes_processes_and_threads_but_no_namespace(machine, clone):
    assert verdict(machine, clone, 0x01200011) == verdict(machine, clone, 0x3D0F00) == ALLOWED
    for flag in (0x20000, 0x2000000, 0x4000000, 0x8000000, 0x10000000, 0x20000000, 0x40000000):
        assert verdict(machine, clone, flag | 17) == EPERM


@pytest.mark.parametrize("machine, socket, setsockopt", [("x86_64", 41, 54), ("aarch64", 198, 208)])
def test_sockets_are_of_known_families_and_keep_their_size(machine, socket, setsockopt):
    assert {verdict(machine, socket, family) for family in (1, 2, 10, 16)} == {ALLOWED}
    assert {verdict(machine, socket, family) for family in (3, 17, 38, 40)} == {errno.EAFNOSUPPORT}
    assert {verdict(machine, setsockopt, 5, 1, option) for option in (7, 8, 32, 33)} == {
        0
    }  # not done, no error
    assert verdict(machine, setsockopt, 5, 1, 2) == verdict(machine, setsockopt, 5, 6, 7) == ALLOWED


def test_a_processor_without_a_filter_is_named():
    with pytest.raises(ValueError, match="x86_64 and aarch64, this computer is riscv64"):
        seccomp.program("riscv64")
