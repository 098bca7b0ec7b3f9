"""The registry: what it holds, and how it answers a wrong file."""

from pathlib import Path

import pytest

from crawlers.sites import load_sites, site_named
from dataset.errors import ConfigError


def test_the_built_in_registry_has_the_demo_and_six_boards() -> None:
    sites = load_sites()
    assert list(sites) == [
        "demo",
        "demo_moebooru",
        "demo_gelbooru",
        "safebooru_donmai",
        "danbooru_donmai",
        "konachan",
        "yandere",
        "safebooru_org",
        "gelbooru_com",
    ]
    assert all(site.api.startswith("https://") for site in sites.values() if not site.is_loopback)
    assert all(site.interval_s >= 1 for site in sites.values() if not site.is_loopback)
    assert all(site.robots_why for site in sites.values() if site.robots_exempt)


def test_the_demo_board_is_where_the_environment_says(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OMOKAGE_BOARD_URL", "http://127.0.0.1:5000/")
    assert load_sites()["demo"].api == "http://127.0.0.1:5000/danbooru"


def test_a_file_changes_a_site_and_adds_one(tmp_path: Path) -> None:
    file = tmp_path / "sites.toml"
    file.write_text(
        "[konachan]\ninterval_s = 5\n"
        '[mine]\nfamily = "moebooru"\napi = "https://board.example"\n'
        'media_hosts = ["board.example"]\npage_size = 10\nsafe_ratings = ["s"]\n'
    )
    sites = load_sites(file)
    assert sites["konachan"].interval_s == 5
    assert sites["konachan"].api == "https://konachan.net"
    assert sites["mine"].page_size == 10


@pytest.mark.parametrize(
    ("text", "said"),
    [
        (
            "[konachan]\npage_sice = 3",
            '"page_sice" is not a key of a site; did you mean "page_size"?',
        ),
        ('[konachan]\npage_size = "3"', "page_size is '3' (str), a whole number wanted"),
        ("[konachan]\npage_size = true", "page_size is True (bool), a whole number wanted"),
        ("[konachan]\nmedia_hosts = [1]", "media_hosts is [1] (list), a list of texts wanted"),
        ("[konachan]\ninterval_s = 0.1", "interval_s is 0.1; at least 1 wanted"),
        ('[konachan]\nsafe_ratings = ["q"]', 'safe_ratings has "q"; on moebooru only s is safe'),
        ('[konachan]\napi = "http://konachan.net"', "http is for loopback only"),
        ('[konachan]\nfamily = "moeboru"', 'did you mean "moebooru"?'),
        ('[new]\nfamily = "moebooru"', "[new] page_size is missing"),
        ("konachan = 3", "konachan is 3 (int), a table [konachan] of a site wanted"),
        ("[konachan", "is not a TOML file"),
    ],
)
def test_a_wrong_registry_is_refused_with_its_place(tmp_path: Path, text: str, said: str) -> None:
    file = tmp_path / "sites.toml"
    file.write_text(text)
    with pytest.raises(ConfigError) as caught:
        load_sites(file)
    assert said in str(caught.value)
    assert str(file) in str(caught.value)


def test_an_unknown_site_is_answered_with_the_nearest() -> None:
    with pytest.raises(ConfigError, match=r'"konachn" is not a site .*did you mean "konachan"\?'):
        site_named("konachn")


def test_only_the_named_api_paths_are_exempt_from_robots() -> None:
    site = load_sites()["safebooru_donmai"]
    assert site.is_exempt_from_robots("https://safebooru.donmai.us/posts.json?tags=1girl")
    assert not site.is_exempt_from_robots("https://safebooru.donmai.us/users.json")
    assert not site.is_exempt_from_robots("https://cdn.donmai.us/posts.json")


def test_sites_of_one_board_have_one_family_and_no_name_means_two_boards(tmp_path: Path) -> None:
    file = tmp_path / "sites.toml"
    file.write_text('[konachan]\nboard = "danbooru"\n')
    with pytest.raises(ConfigError) as caught:
        load_sites(file)
    assert (
        '[konachan] board is "danbooru", which is a danbooru board in [safebooru_donmai]; '
        "moebooru here"
    ) in str(caught.value)
    file.write_text('[konachan]\nboard = "yandere"\n[yandere]\nboard = "konachan"\n')
    with pytest.raises(ConfigError, match='but "konachan" is the board of another site'):
        load_sites(file)
    file.write_text('[konachan]\nboard = "Kona chan"\n')
    with pytest.raises(ConfigError, match="small letters, digits and _ wanted"):
        load_sites(file)
