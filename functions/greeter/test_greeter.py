import pytest


def test_greets_the_world(client):
    response = client.get("/")
    assert response.status_code == 200
    assert response.json() == {"greeting": "Hello, world!", "language": "en"}


@pytest.mark.parametrize(
    ("language", "greeting"),
    [("de", "Guten Tag, Ada!"), ("en", "Hello, Ada!"), ("fr", "Bonjour, Ada!"), ("sw", "Jambo, Ada!")],
)
def test_greets_in_four_languages(client, language, greeting):
    response = client.get("/", params={"name": "Ada", "language": language})
    assert response.json() == {"greeting": greeting, "language": language}


def test_lists_its_languages(client):
    assert client.get("/languages").json() == ["de", "en", "fr", "sw"]


@pytest.mark.parametrize("query", [{"language": "tlh"}, {"name": ""}, {"name": "a" * 81}])
def test_says_what_is_wrong(client, query):
    response = client.get("/", params=query)
    assert response.status_code == 422
    [fault] = response.json()["detail"]
    assert fault["loc"] == ["query", next(iter(query))]


def test_only_greets(client):
    assert client.post("/", json={}).status_code == 405
