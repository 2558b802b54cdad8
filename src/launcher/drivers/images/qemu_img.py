"""qemu-img on files that somebody else made: always with the format said, in narrow limits, never the first to look.

The gate has read the file before (`gate.py`); here a second reader must find the same.
"""

from __future__ import annotations

import json
import shutil
from collections.abc import Sequence
from pathlib import Path

from launcher.drivers import process
from launcher.drivers.images.gate import Passed
from launcher.errors import BadImage, ProgramFailed

LIMITS = ("prlimit", "--cpu=30", f"--as={2**31}", f"--fsize={2**46}", "--core=0")
"""30 s of CPU and 2 GiB of memory, as Nova has them after an image that wanted more (CVE-2015-5162)."""
TIME_LIMIT = 60.0


async def run(words: Sequence[str | Path], *, timeout: float = TIME_LIMIT) -> str:
    """`qemu-img` with these words, in the limits. Raises ProgramFailed, HostResourceMissing."""
    return await process.run([*LIMITS, "qemu-img", *words], timeout=timeout)


async def confirm(path: Path, passed: Passed) -> None:
    """Raises BadImage unless qemu-img sees what the gate saw, and no way out of the file.

    A controller's host without qemu-img relies on the gate alone.
    """
    if shutil.which("qemu-img") is None:
        return
    try:
        said = await run(["info", "-f", passed.format, "--output=json", path])
    except ProgramFailed as error:
        raise BadImage(f"the image cannot be read by qemu-img: {error.message.splitlines()[-1]}") from None
    seen = json.loads(said)
    leads_out = [key for key in ("backing-filename", "full-backing-filename") if key in seen]
    data_file = seen.get("format-specific", {}).get("data", {}).get("data-file")
    if seen["format"] != passed.format or seen["virtual-size"] != passed.virtual_size or leads_out or data_file:
        raise BadImage(
            "qemu-img sees something else in the image than was found", hint="make it anew: qemu-img convert"
        )
