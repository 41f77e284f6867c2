"""Take from Python what other systems lack. A test copies this file to `sitecustomize.py`.

$SRUCLI_SYSTEM is `macos` or `windows`. This cannot show how those systems behave, only that srucli
and the packages that it uses need nothing that these lack. The names are from Python's manual.
"""

import os
import select
import signal
import sys

LINUX = {
    os: (
        *("fork", "forkpty", "sched_getaffinity", "sched_setaffinity", "process_cpu_count"),
        *("pidfd_open", "memfd_create", "eventfd", "copy_file_range", "splice", "getrandom"),
        *("posix_fadvise", "posix_fallocate", "fdatasync", "getxattr", "setxattr", "listxattr"),
        *("pipe2", "setresuid", "getresuid", "O_PATH", "O_TMPFILE", "O_DIRECT", "O_NOATIME"),
    ),
    select: ("epoll",),
    signal: ("sigwaitinfo", "sigtimedwait", "SIGSTKFLT", "SIGPWR", "SIGRTMIN", "SIGRTMAX"),
}
POSIX = {
    os: (
        *("killpg", "getpgid", "setpgid", "setsid", "getuid", "geteuid", "getgid", "getgroups"),
        *("fchmod", "fchown", "chown", "lchown", "mkfifo", "mknod", "nice", "wait"),
        *("O_CLOEXEC", "O_DIRECTORY", "O_NOFOLLOW", "O_NONBLOCK", "O_SYNC", "pathconf", "sysconf"),
        *("statvfs", "pread", "pwrite", "sync", "getloadavg"),
    ),
    signal: ("SIGUSR1", "SIGUSR2", "SIGKILL", "SIGHUP", "SIGALRM", "SIGXFSZ", "pthread_sigmask"),
}
POSIX_MODULES = ("fcntl", "resource", "pwd", "grp", "termios", "tty", "pty", "syslog", "readline")
FOLDERS = ("/proc/", "/dev/shm/")


def remove(table: dict) -> None:  # type: ignore[type-arg]
    for module, names in table.items():
        for name in names:
            if hasattr(module, name):
                delattr(module, name)


def refuse_linux_folders(event: str, arguments: tuple) -> None:  # type: ignore[type-arg]
    if event == "open" and isinstance(arguments[0], str) and arguments[0].startswith(FOLDERS):
        raise FileNotFoundError(2, "not on this system", arguments[0])


def refuse_descriptors_of_folders() -> None:
    """Let functions of `os` take no folder's descriptor, and `os.open` no folder."""
    for supported in (os.supports_dir_fd, os.supports_fd, os.supports_follow_symlinks):
        supported.clear()
    real, listdir = os.open, os.listdir

    def opened(path, flags, mode=0o777, *, dir_fd=None):  # type: ignore[no-untyped-def]
        if dir_fd is not None:
            raise NotImplementedError("dir_fd unavailable on this platform")
        if os.path.isdir(path):
            raise PermissionError(13, "Permission denied", path)
        return real(path, flags, mode)

    def listed(path="."):  # type: ignore[no-untyped-def]
        if isinstance(path, int):
            raise TypeError("listdir: path should be string, bytes, os.PathLike or None, not int")
        return listdir(path)

    os.open, os.listdir = opened, listed


def refuse_pipes(*arguments: object) -> None:
    raise OSError(10038, "an operation was attempted on something that is not a socket")


if system := os.environ.get("SRUCLI_SYSTEM"):
    remove(LINUX)
    sys.addaudithook(refuse_linux_folders)
    sys.modules["psutil"] = None  # type: ignore[assignment]  # this one is made for Linux
    if system == "windows":
        remove(POSIX)
        sys.modules.update(dict.fromkeys(POSIX_MODULES))  # type: ignore[arg-type]
        refuse_descriptors_of_folders()
        select.select = refuse_pipes  # type: ignore[assignment]
