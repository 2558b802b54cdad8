"""What an instance boots from, changed after its launch."""

from __future__ import annotations

import sqlite3

from launcher.models import Boot, Instance, LaunchOrder


def put(db: sqlite3.Connection, instance: Instance, order: LaunchOrder, key_name: str | None) -> None:
    """From now on it is this order's image that its root is made of."""
    db.execute(
        "UPDATE instances SET spec = ?, image_id = ?, image_name = ?, key_name = ? WHERE id = ?",
        (order.model_dump_json(), order.image.id, order.image.name, key_name, instance.id),
    )


def put_rescue(db: sqlite3.Connection, instance: Instance, boot: Boot) -> None:
    db.execute("UPDATE instances SET rescue = ? WHERE id = ?", (boot.model_dump_json(), instance.id))
