"""`admin.json` in the state directory: where the server is, and the first administrator's secrets.

Made at the first start, readable by its owner only; the command line reads it, and `launcher env` makes from it what
other clients need.
"""

from __future__ import annotations

import json
import os
from pathlib import Path
from random import Random

from launcher.accounts import AdminAccess
from launcher.errors import BadRequest
from launcher.identity import new_access_key, new_token

ADMIN = "admin"
"""The id and name of the first user and of its project."""


def keep_admin(state: Path, *, url: str, region: str, rng: Random) -> AdminAccess:
    """What the file says, with what it lacks made anew; the file says it afterwards."""
    path, (key, secret) = state / "admin.json", new_access_key(rng)
    made = {"token": new_token(rng), "password": new_token(rng), "access_key": key, "secret_key": secret}
    try:
        known = dict(json.loads(path.read_text())) if path.exists() else {}
        admin = AdminAccess.model_validate({name: known.get(name) or fresh for name, fresh in made.items()})
    except (ValueError, TypeError, RecursionError):
        raise BadRequest(f"{path} is not the JSON that was written", hint="remove it for new secrets") from None
    content = {"url": url, **admin.model_dump(), "user_id": ADMIN, "project_id": ADMIN, "region": region}
    draft = path.with_suffix(".new")
    with os.fdopen(os.open(draft, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600), "w") as file:
        json.dump(content, file)
    draft.replace(path)
    return admin
