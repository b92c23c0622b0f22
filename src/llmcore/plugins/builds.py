"""
Which builds of ggml are in this process.

Two of them can be mixed up by the loader, which takes the second library of a name for
the first (llama.cpp issues 9267 and 11313, llama-cpp-python issue 1575), and share
what C++ calls unique symbols even if it does not.
"""

from __future__ import annotations

import os
import re
import sys
from collections.abc import Iterable, Iterator
from pathlib import Path

_LIBRARY = re.compile(
    r"(?:^|[^a-z])(?:lib)?(?:ggml|llama).*\.(?:so|dylib|dll|pyd)(?:\.[\d.]+)?$",
    re.IGNORECASE,
)


def ggml_builds() -> frozenset[str]:
    """The folders of the ggml and llama libraries that are mapped now."""
    paths = map(Path, _mapped_libraries())
    return frozenset(str(path.parent) for path in paths if _LIBRARY.search(path.name))


def find_conflict(theirs: Iterable[str]) -> str:
    """
    Why a backend must not be started in this process; empty if it may.

    Args:
        theirs: The folders of the libraries that it loads.
    """
    wanted = frozenset(theirs)
    strangers = ggml_builds() - wanted if wanted else ()
    if not strangers:
        return ""
    return (
        f"its ggml, of {_owners(wanted)}, cannot be loaded beside that of "
        f"{_owners(strangers)}, which is in this process already: "
        "use isolation='process'"
    )


def _owners(folders: Iterable[str]) -> str:
    return " and ".join(sorted({_owner(Path(folder)) for folder in folders}))


def _owner(folder: Path) -> str:
    """The distribution that installed a folder; the folder itself if none did."""
    from importlib.metadata import distributions  # seldom needed

    for distribution in distributions():
        root = Path(str(distribution.locate_file(""))).resolve()
        if folder.is_relative_to(root):
            inside = folder.relative_to(root).as_posix()
            files = distribution.files or ()
            if any(file.parent.as_posix() == inside for file in files):
                return distribution.name
    return str(folder)


def _mapped_libraries() -> Iterator[str]:
    """The files that are mapped into this process, libraries among them."""
    known = {"linux": _linux, "darwin": _macos, "win32": _windows}
    return known.get(sys.platform, lambda: iter(()))()


def _linux() -> Iterator[str]:
    # Address, permissions, offset, device, inode, path: see proc(5).
    with open("/proc/self/maps", encoding="utf-8", errors="surrogateescape") as maps:
        for line in maps:
            fields = line.rstrip("\n").split(maxsplit=5)
            if len(fields) == 6 and fields[5].startswith("/"):
                yield fields[5].removesuffix(" (deleted)")


def _macos() -> Iterator[str]:
    import ctypes

    dyld = ctypes.CDLL(None)
    name_of = dyld["_dyld_get_image_name"]
    name_of.restype, name_of.argtypes = ctypes.c_char_p, [ctypes.c_uint32]
    for index in range(dyld["_dyld_image_count"]()):
        if name := name_of(index):
            yield os.path.realpath(os.fsdecode(name))


def _windows() -> Iterator[str]:
    import ctypes
    from ctypes import wintypes

    kernel = ctypes.WinDLL("kernel32")  # type: ignore[attr-defined]
    enumerate_modules = kernel["K32EnumProcessModules"]
    enumerate_modules.argtypes = [
        wintypes.HANDLE,
        ctypes.POINTER(wintypes.HMODULE),
        wintypes.DWORD,
        wintypes.LPDWORD,
    ]
    process = kernel["GetCurrentProcess"]
    process.restype = wintypes.HANDLE
    file_name = kernel["GetModuleFileNameW"]
    file_name.argtypes = [wintypes.HMODULE, wintypes.LPWSTR, wintypes.DWORD]
    modules = (wintypes.HMODULE * 4096)()
    needed = wintypes.DWORD()
    size = ctypes.sizeof(modules)
    if not enumerate_modules(process(), modules, size, ctypes.byref(needed)):
        return
    count = min(needed.value, size) // ctypes.sizeof(wintypes.HMODULE)
    buffer = ctypes.create_unicode_buffer(32768)  # the longest path there is
    for module in modules[:count]:
        if file_name(module, buffer, len(buffer)):
            yield buffer.value
