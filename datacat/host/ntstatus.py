"""Exit codes of Windows that are no choice of the program: NTSTATUS and well-known exceptions, by name. Pure.

Source: ntstatus.h of the Windows SDK; the codes of C++ and .NET are those of their runtimes.
"""

from typing import NamedTuple


class Status(NamedTuple):
    """The name in ntstatus.h, and what it means in plain words."""

    name: str
    words: str


CONTROL_C = 0xC000013A
LOG_OFF = 0xC000026B
"""STATUS_DLL_INIT_FAILED_LOGOFF: started while the user logged off, or the machine shut down."""
TABLE = {
    0x40010004: Status("DBG_TERMINATE_PROCESS", "ended by the system at log-off, or by a debugger"),
    0x40010005: Status("DBG_CONTROL_C", "Ctrl-C while debugged"),
    0x80000001: Status("STATUS_GUARD_PAGE_VIOLATION", "guard page touched"),
    0x80000002: Status("STATUS_DATATYPE_MISALIGNMENT", "misaligned access"),
    0x80000003: Status("STATUS_BREAKPOINT", "breakpoint without a debugger"),
    0x80000004: Status("STATUS_SINGLE_STEP", "single step without a debugger"),
    0xC0000005: Status("STATUS_ACCESS_VIOLATION", "access violation"),
    0xC0000006: Status("STATUS_IN_PAGE_ERROR", "a page could not be read from disk or network"),
    0xC0000008: Status("STATUS_INVALID_HANDLE", "invalid handle"),
    0xC000000D: Status("STATUS_INVALID_PARAMETER", "invalid parameter"),
    0xC0000017: Status("STATUS_NO_MEMORY", "out of memory"),
    0xC000001D: Status("STATUS_ILLEGAL_INSTRUCTION", "illegal instruction"),
    0xC0000025: Status("STATUS_NONCONTINUABLE_EXCEPTION", "went on after an exception that forbids it"),
    0xC0000026: Status("STATUS_INVALID_DISPOSITION", "invalid exception handler"),
    0xC000008C: Status("STATUS_ARRAY_BOUNDS_EXCEEDED", "array bounds exceeded"),
    0xC000008D: Status("STATUS_FLOAT_DENORMAL_OPERAND", "denormal float operand"),
    0xC000008E: Status("STATUS_FLOAT_DIVIDE_BY_ZERO", "float division by zero"),
    0xC000008F: Status("STATUS_FLOAT_INEXACT_RESULT", "inexact float result"),
    0xC0000090: Status("STATUS_FLOAT_INVALID_OPERATION", "invalid float operation"),
    0xC0000091: Status("STATUS_FLOAT_OVERFLOW", "float overflow"),
    0xC0000092: Status("STATUS_FLOAT_STACK_CHECK", "float stack overflow"),
    0xC0000093: Status("STATUS_FLOAT_UNDERFLOW", "float underflow"),
    0xC0000094: Status("STATUS_INTEGER_DIVIDE_BY_ZERO", "integer division by zero"),
    0xC0000095: Status("STATUS_INTEGER_OVERFLOW", "integer overflow"),
    0xC0000096: Status("STATUS_PRIVILEGED_INSTRUCTION", "privileged instruction"),
    0xC00000FD: Status("STATUS_STACK_OVERFLOW", "stack overflow"),
    0xC0000135: Status("STATUS_DLL_NOT_FOUND", "a DLL is missing"),
    0xC0000138: Status("STATUS_ORDINAL_NOT_FOUND", "a DLL lacks a function (by number)"),
    0xC0000139: Status("STATUS_ENTRYPOINT_NOT_FOUND", "a DLL lacks a function (by name)"),
    CONTROL_C: Status("STATUS_CONTROL_C_EXIT", "Ctrl-C, or the console was closed"),
    0xC0000142: Status("STATUS_DLL_INIT_FAILED", "a DLL could not start"),
    0xC000014B: Status("STATUS_PIPE_BROKEN", "pipe broken"),
    LOG_OFF: Status("STATUS_DLL_INIT_FAILED_LOGOFF", "the user logged off"),
    0xC0000194: Status("STATUS_POSSIBLE_DEADLOCK", "possible deadlock"),
    0xC0000374: Status("STATUS_HEAP_CORRUPTION", "heap corruption"),
    0xC0000409: Status("STATUS_STACK_BUFFER_OVERRUN", "fail-fast exception, or stack buffer overrun"),
    0xC0000417: Status("STATUS_INVALID_CRUNTIME_PARAMETER", "invalid argument to the C runtime"),
    0xC0000420: Status("STATUS_ASSERTION_FAILURE", "assertion failed"),
    0xC000041D: Status("STATUS_FATAL_USER_CALLBACK_EXCEPTION", "exception in a window procedure"),
    0xC0000602: Status("STATUS_FAIL_FAST_EXCEPTION", "fail-fast exception"),
    0xE0434352: Status("CLR exception", "unhandled .NET exception"),
    0xE06D7363: Status("C++ exception", "unhandled C++ exception"),
}
ASKED_TO_STOP = frozenset({CONTROL_C, LOG_OFF, 0x40010004, 0x40010005})
_NEGATIVE = 0xFFFF0000
"""exit(-1) and its like are seen as unsigned numbers from here on: a choice of the program."""


def status(code: int) -> Status | None:
    """Return what an exit code names; None for one that the program chose. Unknown codes are named by number."""
    if known := TABLE.get(code):
        return known
    if 0xC0000000 <= code < _NEGATIVE:
        return Status(f"NTSTATUS 0x{code:08X}", "fatal exception")
    return None


def signed(code: int) -> int:
    """Return an exit code as the program wrote it: exit(-1) is -1."""
    return code - (1 << 32) if code >= _NEGATIVE else code
