import asyncio
import itertools
import socket
import threading

import pytest
from aiosmtpd.smtp import SMTP

from torpor import RejectError, RetryError

ADA = {"address": "ada@example.org", "name": "Ada"}
CAMPAIGN = {"subject": "News for $name", "text": "Dear $name,\nit costs $5.", "recipients": [ADA]}


class Server:
    """A real mail server, whose answers a test can choose."""

    def __init__(self, set_variable):
        self.mails = []
        self.answers = []
        self.address = None
        self.set_variable = set_variable

    def use(self):
        """Have the mailer send to this server, and not to the one that is declared."""
        host, port = self.address
        self.set_variable("SMTP_HOST", host)
        self.set_variable("SMTP_PORT", str(port))

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
    handler, loop = Server(monkeypatch.setenv), asyncio.new_event_loop()
    opening = loop.create_server(lambda: SMTP(handler, enable_SMTPUTF8=True, loop=loop), "127.0.0.1", 0)
    listening = loop.run_until_complete(opening)
    thread = threading.Thread(target=loop.run_forever)
    thread.start()
    handler.address = listening.sockets[0].getsockname()
    yield handler
    loop.call_soon_threadsafe(loop.stop)
    thread.join()
    listening.close()
    loop.run_until_complete(listening.wait_closed())
    loop.close()


@pytest.fixture
def mailer(client_for, server):
    """A client of the mailer."""
    client = client_for("mailer")
    server.use()
    return client


@pytest.fixture
def post(platform, server):
    """All of it, with the broker."""
    server.use()
    return platform


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


def test_a_mail_is_handed_over(mailer, server):
    [sent] = mailer.send("mail.requested", mail(), id="m1")

    [envelope] = server.mails
    assert envelope.rcpt_tos == ["ada@example.org"]
    assert sent.get_data()["message_id"].encode() in envelope.content
    assert b"Dear Ada" in envelope.content


def test_the_same_event_is_the_same_message(mailer):
    [first], [again] = (mailer.send("mail.requested", mail(), id="m1") for _ in range(2))
    [other] = mailer.send("mail.requested", mail(), id="m2")

    assert first.get_data() == again.get_data() != other.get_data()


@pytest.mark.parametrize(("answer", "error"), [("451 later", RetryError), ("554 never", RejectError)])
def test_what_the_server_refuses(mailer, server, answer, error):
    server.answers = [answer]
    with pytest.raises(error, match=answer):
        mailer.send("mail.requested", mail())
    assert server.mails == []


def test_an_address_that_is_not_there_is_final(mailer):
    with pytest.raises(RejectError, match="550 there is nobody"):
        mailer.send("mail.requested", mail("nobody@example.org"))


def test_a_server_that_is_away_is_tried_again(mailer, monkeypatch):
    with socket.create_server(("127.0.0.1", 0)) as closed:
        port = closed.getsockname()[1]
    monkeypatch.setenv("SMTP_PORT", str(port))
    with pytest.raises(RetryError, match="can't be reached"):
        mailer.send("mail.requested", mail())


def test_letters_beyond_ascii_have_to_be_enabled(mailer, server, monkeypatch):
    with pytest.raises(RejectError, match="INTERNATIONAL"):
        mailer.send("mail.requested", mail("jürgen@example.org"))

    monkeypatch.setenv("INTERNATIONAL", "yes")
    mailer.send("mail.requested", mail("jürgen@example.org"))
    assert [envelope.rcpt_tos for envelope in server.mails] == [["jürgen@example.org"]]


# --- all of them, with the events between -------------------------------------------------------------------


def test_what_fails_at_first_is_sent_once_in_the_end(post, server):
    server.answers = ["451 later", "421 busy"]
    post.send("campaign.requested", CAMPAIGN)
    assert post.events("mail.sent") == []
    post.advance(5)

    assert len(post.events("mail.sent")) == len(server.mails) == 1
    assert post.dead_letters() == []


def test_mails_go_out_at_the_pace_that_the_server_bears(post, server):
    many = [{"address": f"reader-{number}@example.org", "name": "-"} for number in range(250)]
    post.send("campaign.requested", {**CAMPAIGN, "recipients": many})
    counts = [len(server.mails)]
    for _ in range(3):
        post.advance(1)
        counts.append(len(server.mails))

    assert counts[-1] == 250
    assert max(after - before for before, after in itertools.pairwise(counts)) <= 110


def test_what_never_will_go_is_a_dead_letter_at_once(post, server):
    post.send(
        "campaign.requested",
        {**CAMPAIGN, "recipients": [ADA, {"address": "nobody@example.org", "name": "-"}]},
    )
    post.advance(1)

    assert len(server.mails) == 1
    [dead] = post.dead_letters()
    assert dead.get_attributes()["knativeerrorcode"] == "422"
    assert dead.get_attributes()["torporattempts"] == "1"
