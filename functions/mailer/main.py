"""Sends a campaign: one event becomes a mail for each recipient, and each mail is delivered for itself.

A mail that the server can't take now is tried again later; one that it never will take is a dead letter.
"""

import hashlib
import os
import smtplib
from collections.abc import Iterator
from email.message import EmailMessage
from string import Template
from typing import NoReturn

from pydantic import BaseModel

from torpor import Context, RejectError, RetryError, function

SENDER = os.environ.get("SENDER", "news@example.com")
TIMEOUT_SECONDS = 20


class Recipient(BaseModel):
    """Who gets a mail."""

    address: str
    name: str


class Campaign(BaseModel):
    """A mail to many; `$name` in its text is each recipient's own."""

    subject: str
    text: str
    recipients: list[Recipient]


class Mail(BaseModel):
    """A mail to one."""

    to: Recipient
    subject: str
    text: str


class Sent(BaseModel):
    """What the server took."""

    address: str
    message_id: str


@function(emits="mail.requested")
def campaign(wanted: Campaign) -> Iterator[Mail]:
    """Make each recipient's own mail."""
    text, subject = Template(wanted.text), Template(wanted.subject)
    for to in wanted.recipients:
        values = {"name": to.name}
        yield Mail(to=to, subject=subject.safe_substitute(values), text=text.safe_substitute(values))


@function(emits="mail.sent")
def mailer(mail: Mail, ctx: Context) -> Sent:
    """Hand one mail to the server."""
    message = written(mail, ctx.attributes["id"])
    try:
        with smtplib.SMTP(*server_address(), timeout=TIMEOUT_SECONDS) as server:
            server.send_message(message)
    except smtplib.SMTPRecipientsRefused as error:
        declined(*error.recipients[mail.to.address])
    except smtplib.SMTPResponseException as error:
        declined(error.smtp_code, error.smtp_error)
    except OSError as error:  # smtplib's other errors are of this kind, too
        raise RetryError(f"the mail server can't be reached: {error}") from error
    ctx.logger.info("sent")
    return Sent(address=mail.to.address, message_id=message["Message-ID"])


def server_address() -> tuple[str, int]:
    """Where the mail server is."""
    return os.environ.get("SMTP_HOST", "127.0.0.1"), int(os.environ.get("SMTP_PORT", "2525"))


def written(mail: Mail, event_id: str) -> EmailMessage:
    """The message; its id is the event's, so that who gets it twice can tell."""
    # RFC 6531; not every mail server knows it.
    if not mail.to.address.isascii() and os.environ.get("INTERNATIONAL") != "yes":
        raise RejectError(f"{mail.to.address} has letters beyond ASCII: set INTERNATIONAL to 'yes'")
    message = EmailMessage()
    message["Message-ID"] = f"<{hashlib.sha256(event_id.encode()).hexdigest()}@{SENDER.partition('@')[2]}>"
    message["From"] = SENDER
    message["To"] = mail.to.address
    message["Subject"] = mail.subject
    message.set_content(mail.text)
    return message


def declined(code: int, text: bytes) -> NoReturn:
    """Answer what the server's refusal means: 4xx may go well later, 5xx never will (RFC 5321, 4.2.1)."""
    reason = f"the mail server said {code} {text.decode('utf-8', 'replace')}"
    if 400 <= code < 500:
        raise RetryError(reason)
    raise RejectError(reason)
