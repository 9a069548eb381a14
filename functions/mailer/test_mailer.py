import asyncio
import socket
import threading

import main
import pytest
from aiosmtpd.smtp import SMTP

from torpor import RejectError, RetryError

ADA = {"address": "ada@example.org", "name": "Ada"}
CAMPAIGN = {"subject": "News for $name", "text": "Dear $name,\nit costs $5.", "recipients": [ADA]}


class Server:
    """A real mail server, whose answers a test can choose."""

    def __init__(self):
        self.mails = []
        self.answers = []

    async def handle_DATA(self, server, session, envelope):
        answer = self.answers.pop(0) if self.answers else "250 OK"
        if answer.startswith("250"):
            self.mails.append(envelope)
        return answer

    async def handle_RCPT(self, server, session, envelope, address, options):
        if address.startswith("nobody@"):
            return "550 there is nobody of that name"
        envelope.rcpt_tos.append(address)
        return "250 OK"


@pytest.fixture
def server(monkeypatch):
    handler, loop = Server(), asyncio.new_event_loop()
    opening = loop.create_server(lambda: SMTP(handler, enable_SMTPUTF8=True, loop=loop), "127.0.0.1", 0)
    listening = loop.run_until_complete(opening)
    thread = threading.Thread(target=loop.run_forever)
    thread.start()
    host, port = listening.sockets[0].getsockname()
    monkeypatch.setattr(main, "HOST", host)
    monkeypatch.setattr(main, "PORT", port)
    yield handler
    loop.call_soon_threadsafe(loop.stop)
    thread.join()
    listening.close()
    loop.run_until_complete(listening.wait_closed())
    loop.close()


def mail(address="ada@example.org"):
    return {"to": {"address": address, "name": "Ada"}, "subject": "News", "text": "Dear Ada"}


# --- a function at a time -----------------------------------------------------------------------------------


def test_a_campaign_becomes_a_mail_for_each_recipient(client_for):
    grace = {"address": "grace@example.org", "name": "Grace"}
    replies = client_for("campaign").send("campaign.requested", {**CAMPAIGN, "recipients": [ADA, grace]})

    assert [reply.get_type() for reply in replies] == ["mail.requested"] * 2
    assert [reply.get_data()["to"] for reply in replies] == [ADA, grace]
    assert replies[1].get_data()["subject"] == "News for Grace"
    assert replies[0].get_data()["text"] == "Dear Ada,\nit costs $5."


def test_a_mail_is_handed_over(client_for, server):
    [sent] = client_for("mailer").send("mail.requested", mail(), id="m1")

    [envelope] = server.mails
    assert envelope.rcpt_tos == ["ada@example.org"]
    assert sent.get_data()["message_id"].encode() in envelope.content
    assert b"Dear Ada" in envelope.content


def test_the_same_event_is_the_same_message(client_for, server):
    client = client_for("mailer")
    [first], [again] = (client.send("mail.requested", mail(), id="m1") for _ in range(2))
    [other] = client.send("mail.requested", mail(), id="m2")

    assert first.get_data() == again.get_data() != other.get_data()


@pytest.mark.parametrize(("answer", "error"), [("451 later", RetryError), ("554 never", RejectError)])
def test_what_the_server_refuses(client_for, server, answer, error):
    server.answers = [answer]
    with pytest.raises(error, match=answer):
        client_for("mailer").send("mail.requested", mail())
    assert server.mails == []


def test_an_address_that_is_not_there_is_final(client_for, server):
    with pytest.raises(RejectError, match="550 there is nobody"):
        client_for("mailer").send("mail.requested", mail("nobody@example.org"))


def test_a_server_that_is_away_is_tried_again(client_for, monkeypatch):
    with socket.create_server(("127.0.0.1", 0)) as closed:
        port = closed.getsockname()[1]
    monkeypatch.setattr(main, "HOST", "127.0.0.1")
    monkeypatch.setattr(main, "PORT", port)
    with pytest.raises(RetryError, match="can't be reached"):
        client_for("mailer").send("mail.requested", mail())


def test_letters_beyond_ascii_have_to_be_enabled(client_for, server, monkeypatch):
    client = client_for("mailer")
    with pytest.raises(RejectError, match="INTERNATIONAL"):
        client.send("mail.requested", mail("jürgen@example.org"))

    monkeypatch.setattr(main, "INTERNATIONAL", True)
    client.send("mail.requested", mail("jürgen@example.org"))
    assert [envelope.rcpt_tos for envelope in server.mails] == [["jürgen@example.org"]]


# --- all of them, with the events between -------------------------------------------------------------------


def test_what_fails_at_first_is_sent_once_in_the_end(platform, server):
    server.answers = ["451 later", "421 busy"]
    platform.send("campaign.requested", CAMPAIGN)
    assert platform.events("mail.sent") == []
    platform.advance(5)

    assert len(platform.events("mail.sent")) == len(server.mails) == 1
    assert platform.dead_letters() == []


def test_what_never_will_go_is_a_dead_letter_at_once(platform, server):
    platform.send(
        "campaign.requested",
        {**CAMPAIGN, "recipients": [ADA, {"address": "nobody@example.org", "name": "-"}]},
    )

    assert len(server.mails) == 1
    [dead] = platform.dead_letters()
    assert dead.get_attributes()["knativeerrorcode"] == "422"
    assert dead.get_attributes()["torporattempts"] == "1"
