"""IMDSv2's session tokens: proof that who asks could send a PUT with a header, which a tricked proxy cannot."""

from __future__ import annotations

import base64
import binascii
import hmac
import struct
from random import Random

from launcher.clock import Clock
from launcher.models import InstanceId

LONGEST = 21600
"""Seconds, as EC2 has it."""

_HEAD = struct.Struct(">Q16s")


class Tokens:
    """A token is its end, a random part, and a seal over both and the instance's id. None is kept: a guest that asks
    for millions fills nothing and pushes nobody's out. The key is this process's own, so a restart ends all tokens.
    """

    def __init__(self, *, clock: Clock, rng: Random) -> None:
        self.clock, self.rng = clock, rng
        self._key = rng.randbytes(32)

    def issue(self, instance_id: InstanceId, seconds: int) -> str:
        head = _HEAD.pack(int(self.clock.now_ms() + seconds * 1000), self.rng.randbytes(16))
        return base64.urlsafe_b64encode(head + self._seal(head, instance_id)).decode()

    def seconds_left(self, token: str, instance_id: InstanceId) -> int:
        """0 when it has ended, is another instance's, or was never issued."""
        try:
            raw = base64.b64decode(token.encode("ascii"), altchars=b"-_", validate=True)
        except (UnicodeEncodeError, binascii.Error):
            return 0
        head, seal = raw[: _HEAD.size], raw[_HEAD.size :]
        if len(head) < _HEAD.size or not hmac.compare_digest(seal, self._seal(head, instance_id)):
            return 0
        end, _ = _HEAD.unpack(head)
        return max(0, int((end - self.clock.now_ms() + 999) // 1000))

    def _seal(self, head: bytes, instance_id: InstanceId) -> bytes:
        return hmac.digest(self._key, head + instance_id.encode(), "sha256")
