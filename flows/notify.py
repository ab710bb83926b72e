"""Tells a webhook what failed."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any


def notify(address: str, message: Mapping[str, Any]) -> None:
    """Send `message` as JSON by POST; redirects are not followed.

    Args:
        address: http(s) URL, a secret: it enters no message.
        message: Plain JSON.

    Raises:
        InputError: The address is no http(s) URL.
        InfrastructureError: It did not take the message, three times.
    """
    raise NotImplementedError
