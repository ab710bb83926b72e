"""Tells a webhook what failed: its address is the secret `webhook` (`INFINIDUB_SECRETS__WEBHOOK`)."""

from __future__ import annotations

import json
import time
import urllib.request
from collections.abc import Mapping, Sequence
from http.client import HTTPException
from typing import Any
from urllib.error import HTTPError
from urllib.parse import urlsplit

import sqlalchemy as sa

from flows.settings import Settings
from models.errors import InfinidubError, InfrastructureError, InputError

SECRET = "webhook"  # noqa: S105 - its name
WHERE = "INFINIDUB_SECRETS__WEBHOOK"
TIMEOUT_S = 10
WAITS_S = (1.0, 3.0)
"""Between the tries."""
LISTED = 50
"""Failures that one message names."""
BUSY = 429


def notify(address: str, message: Mapping[str, Any]) -> None:
    """Send `message` as JSON by POST; redirects are not followed.

    Args:
        address: http(s) URL, a secret: it enters no message.
        message: Plain JSON.

    Raises:
        InputError: The address is no http(s) URL.
        InfrastructureError: It did not take the message, three times; or it said that it never will.
    """
    check_address(address)
    request = urllib.request.Request(  # noqa: S310 - http(s) alone, as just checked
        address, json.dumps(message).encode(), {"Content-Type": "application/json", "User-Agent": "infinidub"})
    opener = urllib.request.build_opener(_NoRedirect)
    for wait in (*WAITS_S, None):
        try:
            with opener.open(request, timeout=TIMEOUT_S):
                return
        except HTTPError as error:
            what, again = f"answered {error.code}", error.code >= 500 or error.code == BUSY
            error.close()
        except (OSError, HTTPException) as error:  # their texts may hold the address
            what, again = f"could not be reached ({type(error).__name__})", True
        if wait is None or not again:
            # its cause is left out: that may hold the address, which is a secret
            raise InfrastructureError(f"the webhook {what}", where=WHERE, hint="Is its address right, its server up?")
        time.sleep(wait)


def announce(settings: Settings, event: str, failed: Sequence[Mapping[str, Any]], **facts: Any) -> str:
    """Tell the webhook, if there is one, what failed; a run never fails for that.

    Args:
        settings: Their secrets are cut out of what is sent.
        event: What happened, e.g. 'run-failed'.
        failed: One plain mapping a failure, with `message`.
        facts: What else is known: run, catalog, command.

    Returns:
        Why nobody could be told; '' where it was sent, or no webhook is set.
    """
    address = settings.secret(SECRET)
    if not address:
        return ""
    head = f"infinidub {event}: {len(failed)} failed"
    text = "\n".join([head, *(str(one.get("message", "")) for one in failed[:LISTED])])
    message = {"event": event, **facts, "failed": [dict(one) for one in failed[:LISTED]],
               "more": max(0, len(failed) - LISTED), "text": text}
    try:
        notify(address, _without_secrets(message, settings))
    except InfinidubError as error:
        return str(error)
    return ""


def _without_secrets(value: Any, settings: Settings) -> Any:
    """The same plain JSON, with the values of all secrets blotted out."""
    if isinstance(value, Mapping):
        return {key: _without_secrets(one, settings) for key, one in value.items()}
    if isinstance(value, list):
        return [_without_secrets(one, settings) for one in value]
    if not isinstance(value, str):
        return value
    for secret in _secrets(settings):
        value = value.replace(secret, "***")
    return value


def _secrets(settings: Settings) -> list[str]:
    values = [one.get_secret_value() for one in settings.secrets.values()]
    try:
        values.append(str(sa.make_url(settings.database.get_secret_value()).password or ""))
    except (sa.exc.ArgumentError, ValueError):
        values.append(settings.database.get_secret_value())
    return sorted(filter(None, values), key=len, reverse=True)


def check_address(address: str) -> None:
    """Raise `InputError` where it is no http(s) URL; it is a secret, so that the message does not repeat it."""
    try:
        parts = urlsplit(address)
        good = parts.scheme in {"http", "https"} and bool(parts.hostname) and parts.port != 0
    except ValueError:
        good = False
    if not good or not address.isprintable() or " " in address:
        raise InputError("is no http(s) address", where=WHERE, hint="Set it to the address that messages are posted to")


class _NoRedirect(urllib.request.HTTPRedirectHandler):
    """An address that sends elsewhere is wrong: what failed here is nobody else's business."""

    def redirect_request(self, *_args: Any, **_others: Any) -> None:
        """Never."""
