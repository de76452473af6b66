"""Loading from a Hub: the real client against a small server on loopback, and everything that can go wrong."""

from __future__ import annotations

import hashlib
import shutil
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml
from fresh import Fresh
from hub_server import READ, STRANGER, HubServer, Repo

from avzoo import bundle, hub, registry
from avzoo.errors import AvzooError, BundleError, DataNotFoundError, HubError
from avzoo.models import AVSDN

CLASSES = ["drone", "bell", "background"]
PREPROCESS = {"audio_backbone": "avzoo-audio", "visual_backbone": "tf_efficientnet_lite0"}
PATIENCE = 10  # s that a refusal may take on a busy machine; the client's own retries take half a minute
COMMIT = "0123456789" * 4


def digest(model: Any) -> str:
    """Of the weights and of what the model answers, bit for bit."""
    numbers = torch.Generator().manual_seed(0)
    audio, visual = torch.randn(2, 10, 128, generator=numbers), torch.randn(2, 10, 1280, generator=numbers)
    with torch.no_grad():
        values = [*model.state_dict().values(), model(audio, visual)]
    return hashlib.sha256(b"".join(value.numpy().tobytes() for value in values)).hexdigest()


def load(name: str, revision: str | None = None) -> str:
    return digest(hub.load(name, revision=revision))


@pytest.fixture(scope="module")
def fresh() -> Iterator[Fresh]:
    process = Fresh()
    yield process
    process.close()


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A small bundle whose golden clip is no film."""
    home = tmp_path_factory.mktemp("bundle")
    (home / "clip").write_bytes(b"no film")
    model = AVSDN(CLASSES, audio_dim=128, visual_dim=1280, hidden_dim=4, preprocess=PREPROCESS)
    sample = {"audio": torch.ones(10, 128), "visual": torch.ones(10, 1280), "logits": torch.ones(10, 3)}
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("avzoo.bundle.writing.golden", lambda *_: sample)
        return bundle.write(home / "b", model, recipe="seed: 0\n", golden_clip=home / "clip", card="---\n---\n# It\n")


@pytest.fixture(scope="module")
def answer(folder: Path) -> str:
    return digest(bundle.read(folder))


@pytest.fixture(scope="module")
def server() -> Iterator[HubServer]:
    with HubServer().running() as running:
        yield running


@pytest.fixture
def repo(server: HubServer, folder: Path) -> Iterator[Repo]:
    """`me/it`: the bundle, and files that nobody asked for."""
    server.faults.__init__()  # type: ignore[misc]  # all is well again
    server.log.clear()
    made = server.repos["me/it"] = Repo()
    made.commit({file.name: file.read_bytes() for file in folder.iterdir()} | {".gitattributes": b"", "run.py": b"1/0"})
    yield made
    server.repos.clear()


@pytest.fixture
def env(server: HubServer, tmp_path: Path) -> dict[str, str]:
    """A user with an empty cache."""
    quiet = {"HF_HUB_DISABLE_XET": "1", "HF_HUB_DISABLE_PROGRESS_BARS": "1"}
    return {"HF_ENDPOINT": server.url, "HF_HOME": str(tmp_path / "home"), **quiet}


@pytest.fixture
def listed(repo: Repo, folder: Path, tmp_path: Path) -> dict[str, str]:
    """A registry file of the user's own with one entry, `mine`, as an environment variable."""
    entry = {
        "model": "AVSDN",
        "task": "segment",
        "about": "It does",
        "dataset": "own",
        "recipe": "avsdn-avemix",
        "features": "own extraction",
        "classes": CLASSES,
        "licence": "CC0-1.0",
        "weights": "hub",
        "hub": {"repo": "me/it", "revision": repo.head},
        "files": bundle.manifest(folder),
    }
    file = tmp_path / "mine.yaml"
    file.write_text(yaml.safe_dump({"mine": entry}))
    return {"AVZOO_REGISTRY": str(file)}


# -- all is well -----------------------------------------------------------------------------------------------------


def test_a_registry_name_comes_from_the_hub_once_and_then_from_the_cache(
    fresh: Fresh, repo: Repo, server: HubServer, env: dict[str, str], listed: dict[str, str], answer: str, folder: Path
) -> None:
    assert fresh(load, "mine", env=env | listed) == [answer]
    assert sorted(server.downloads()) == sorted(file.name for file in folder.iterdir())  # not what nobody asked for
    server.log.clear()
    assert fresh(load, "mine", env=env | listed) == [answer]
    assert fresh(load, f"hf:me/it@{repo.head}", env=env | {"HF_HUB_OFFLINE": "1"}) == [answer]
    assert server.log == []  # a warm cache asks nobody


def load_from(name: str, file: str) -> str:
    return digest(hub.load(name, registry=file))


def test_a_registry_can_be_an_argument(
    fresh: Fresh, env: dict[str, str], listed: dict[str, str], answer: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    file = listed["AVZOO_REGISTRY"]
    assert fresh(load_from, "mine", file, env=env) == [answer]
    assert "mine" in registry.list_models(registry=file)
    assert "mine" not in registry.list_models()
    monkeypatch.setenv("AVZOO_REGISTRY", file)
    assert "mine" in registry.list_models("m*")


def test_an_entry_that_the_package_lacks_comes_from_the_hub(
    fresh: Fresh, env: dict[str, str], listed: dict[str, str], answer: str
) -> None:
    file = Path(listed["AVZOO_REGISTRY"])
    file.write_text(file.read_text().replace("weights: hub", "weights: package"))
    assert fresh(load, "mine", env=env | listed) == [answer]


def test_a_users_recipe_lies_beside_the_users_registry(listed: dict[str, str], tmp_path: Path) -> None:
    file = Path(listed["AVZOO_REGISTRY"])
    file.write_text(file.read_text().replace("recipe: avsdn-avemix", "recipe: mine"))
    with pytest.raises(DataNotFoundError, match=r"mine\.yaml is missing: mine names it as its recipe"):
        hub.load("mine", pretrained=False, registry=file)
    (tmp_path / "recipes").mkdir()
    sizes = "model: {name: AVSDN, audio_dim: 128, visual_dim: 1280, hidden_dim: 3}"
    (tmp_path / "recipes" / "mine.yaml").write_text(sizes)
    assert hub.load("mine", pretrained=False, registry=file).hparams["hidden_dim"] == 3


def test_a_name_of_avzoos_own_cannot_be_taken(listed: dict[str, str]) -> None:
    file = Path(listed["AVZOO_REGISTRY"])
    file.write_text(file.read_text().replace("mine:", "avsdn-ave:"))
    with pytest.raises(AvzooError, match="entry 'avsdn-ave' has a name of avzoo's own: give it another"):
        registry.list_models(registry=file)


def test_the_present_commit_is_shown_and_loads(fresh: Fresh, repo: Repo, env: dict[str, str], answer: str) -> None:
    repo.tags["v1"] = repo.head
    for name in ("hf:me/it", "hf:me/it@main", "hf:me/it@v1", "hf:me/it@" + repo.head[:12]):
        with pytest.raises(HubError, match="40 hex digits") as caught:
            fresh(load, name, env=env)
        shown = [word for word in str(caught.value).split() if word == f"hf:me/it@{repo.head}"]
        assert shown or name.endswith(repo.head[:12])
    assert fresh(load, f"hf:me/it@{repo.head}", env=env) == [answer]


def test_another_revision_is_compared_with_its_own_manifest(
    fresh: Fresh, repo: Repo, env: dict[str, str], listed: dict[str, str], answer: str
) -> None:
    files = repo.commits[repo.head]
    later = repo.commit({**files, "recipe.yaml": files["recipe.yaml"] + b"# later\n"})
    with pytest.raises(BundleError, match=r"recipe\.yaml"):
        fresh(load, "mine", later, env=env | listed)  # nor does its own manifest know the new recipe
    repo.commit({**files, "README.md": files["README.md"]})
    assert fresh(load, "mine", repo.head, env=env | listed) == [answer]


def test_processes_that_load_at_once_download_once(
    fresh: Fresh, repo: Repo, server: HubServer, env: dict[str, str], answer: str
) -> None:
    server.faults.pause = 0.3  # each body waits half way, so that all are waiting for it
    assert fresh(load, f"hf:me/it@{repo.head}", env=env, processes=8) == [answer] * 8
    downloads = server.downloads()
    assert len(downloads) == len(set(downloads))


def test_a_download_that_broke_off_goes_on(fresh: Fresh, repo: Repo, server: HubServer, env: dict[str, str]) -> None:
    server.faults.truncate = 2
    fresh(load, f"hf:me/it@{repo.head}", env=env)
    assert len(server.downloads()) > len(set(server.downloads()))


def test_a_server_that_stops_half_way_and_comes_back(
    fresh: Fresh, repo: Repo, server: HubServer, env: dict[str, str], answer: str
) -> None:
    server.faults.pause = 1.0

    def restart() -> None:
        while not server.downloads():
            time.sleep(0.02)
        server.stop()
        server.faults.pause = 0
        time.sleep(1)
        server.start()

    other = threading.Thread(target=restart)
    other.start()
    try:
        assert fresh(load, f"hf:me/it@{repo.head}", env=env) == [answer]
    finally:
        other.join()


def test_a_warm_cache_needs_no_server(
    fresh: Fresh, repo: Repo, server: HubServer, env: dict[str, str], answer: str
) -> None:
    name = f"hf:me/it@{repo.head}"
    fresh(load, name, env=env)
    server.stop()
    try:
        started = time.monotonic()
        assert fresh(load, name, env=env) == [answer]
        assert time.monotonic() - started < PATIENCE
    finally:
        server.start()


@pytest.mark.parametrize("switch", ["private", "gated"])
def test_who_was_let_in_loads(fresh: Fresh, repo: Repo, env: dict[str, str], answer: str, switch: str) -> None:
    setattr(repo, switch, True)
    assert fresh(load, f"hf:me/it@{repo.head}", env=env | {"HF_TOKEN": READ}) == [answer]


# -- what goes wrong is one line, soon -------------------------------------------------------------------------------


def refused(fresh: Fresh, name: str, env: dict[str, str], error: type[Exception] = HubError) -> str:
    started = time.monotonic()
    with pytest.raises(error) as caught:
        fresh(load, name, env=env)
    assert time.monotonic() - started < PATIENCE
    assert "\n" not in str(caught.value)
    return str(caught.value)


@pytest.mark.parametrize(
    ("switch", "token", "said"),
    [
        ("private", "", "there is no me/it at http"),
        ("private", STRANGER, "there is no me/it at http"),
        ("private", "", "HF_TOKEN"),
        ("gated", "", "me/it is gated: ask for access at http"),
        ("gated", STRANGER, "me/it is gated: ask for access at http"),
        ("", "hf_wrong", "answers 401: the token is not accepted: set HF_TOKEN"),
    ],
)
def test_who_may_not_read_is_told(
    fresh: Fresh, repo: Repo, env: dict[str, str], switch: str, token: str, said: str
) -> None:
    if switch:
        setattr(repo, switch, True)
    assert said in refused(fresh, f"hf:me/it@{repo.head}", env | ({"HF_TOKEN": token} if token else {}))


def test_what_is_not_there_is_told(fresh: Fresh, repo: Repo, env: dict[str, str]) -> None:
    assert "there is no me/nothing at http" in refused(fresh, f"hf:me/nothing@{COMMIT}", env)
    said = refused(fresh, f"hf:me/it@{COMMIT}", env)
    assert f"me/it has no commit {COMMIT}" in said
    assert repo.head in said  # where it is now
    empty = repo.commit({"README.md": b"nothing"})
    assert f"me/it@{empty} holds no config.json: it is no avzoo bundle" in refused(fresh, f"hf:me/it@{empty}", env)
    assert "there is no me/nothing at http" in refused(fresh, "hf:me/nothing", env)


def test_offline_with_a_cold_cache(fresh: Fresh, repo: Repo, server: HubServer, env: dict[str, str]) -> None:
    said = refused(fresh, f"hf:me/it@{repo.head}", env | {"HF_HUB_OFFLINE": "1"})
    assert "is not in the cache and HF_HUB_OFFLINE is set: unset it, or load it once while online" in said
    assert "40 hex digits" in refused(fresh, "hf:me/it", env | {"HF_HUB_OFFLINE": "1"})
    assert server.log == []


def test_a_server_that_is_down(fresh: Fresh, repo: Repo, server: HubServer, env: dict[str, str]) -> None:
    server.stop()
    try:
        said = refused(fresh, f"hf:me/it@{repo.head}", env)
        assert "is not in the cache and http" in said
        assert "cannot be reached (ConnectError): check the network and HF_ENDPOINT" in said
        assert "cannot be reached" in refused(fresh, "hf:me/it", env)
    finally:
        server.start()


def test_a_server_that_does_not_answer(fresh: Fresh, repo: Repo, server: HubServer, env: dict[str, str]) -> None:
    server.faults.hang = 5
    said = refused(fresh, f"hf:me/it@{repo.head}", env | {"HF_HUB_ETAG_TIMEOUT": "1"})
    assert "cannot be reached (ReadTimeout)" in said


@pytest.mark.parametrize(("status", "said"), [(503, "answers 503: try again later"), (429, "answers 429: too many")])
def test_a_server_in_trouble(
    fresh: Fresh, repo: Repo, server: HubServer, env: dict[str, str], status: int, said: str
) -> None:
    server.faults.status = status
    assert said in refused(fresh, f"hf:me/it@{repo.head}", env)


def test_a_body_that_is_always_cut_short(fresh: Fresh, repo: Repo, server: HubServer, env: dict[str, str]) -> None:
    server.faults.truncate = 1000
    started = time.monotonic()
    with pytest.raises(HubError, match="the transfer broke off: run it again"):
        fresh(load, f"hf:me/it@{repo.head}", env=env)
    assert time.monotonic() - started < 2 * PATIENCE  # five more tries, a second apart: a short outage passes
    server.faults.truncate = 0
    fresh(load, f"hf:me/it@{repo.head}", env=env)  # nothing half-written stayed behind


@pytest.mark.parametrize(
    "patience",
    [
        pytest.param({"HF_HUB_DOWNLOAD_TIMEOUT": "1"}, id="asked for"),
        pytest.param({}, id="ours", marks=pytest.mark.slow),
    ],
)
def test_a_body_that_never_comes(
    fresh: Fresh, repo: Repo, server: HubServer, env: dict[str, str], patience: dict[str, str]
) -> None:
    server.faults.silence = 60
    started = time.monotonic()
    with pytest.raises(HubError, match=r"cannot be reached \(ReadTimeout\)"):
        fresh(load, f"hf:me/it@{repo.head}", env=env | patience)
    assert time.monotonic() - started < (20 if patience else 40)  # 11 s and 23 s, and what a busy machine adds


def timeouts() -> tuple[float, float]:
    """The client's while something is downloaded, and afterwards."""
    from huggingface_hub import constants

    with hub._patience():
        during = constants.HF_HUB_DOWNLOAD_TIMEOUT
    return during, constants.HF_HUB_DOWNLOAD_TIMEOUT


def test_a_silent_transfer_is_given_up_soon_unless_the_user_has_patience(fresh: Fresh, env: dict[str, str]) -> None:
    assert fresh(timeouts, env=env) == [(hub.SILENCE, 10)]
    assert fresh(timeouts, env=env | {"HF_HUB_DOWNLOAD_TIMEOUT": "45"}) == [(45, 45)]
    assert 6 * hub.SILENCE + 5 < 30  # the client tries six times, a second apart


def forget(repo: str) -> None:
    from avzoo import cli

    cli.main(["cache", "--remove", repo])


def test_flipped_bytes_are_found_and_thrown_away(
    fresh: Fresh, repo: Repo, server: HubServer, env: dict[str, str], listed: dict[str, str], answer: str
) -> None:
    server.faults.flip = True
    for name in ("mine", f"hf:me/it@{repo.head}"):
        said = refused(fresh, name, env | listed, BundleError)
        assert "`avzoo cache --remove me/it` throws this copy away" in said
    server.faults.flip = False
    assert "avzoo cache --remove" in refused(fresh, "mine", env | listed, BundleError)  # the cache keeps what it has
    fresh(forget, "me/it", env=env)
    assert fresh(load, "mine", env=env | listed) == [answer]


def test_a_tampered_cache_is_refused(fresh: Fresh, env: dict[str, str], listed: dict[str, str]) -> None:
    fresh(load, "mine", env=env | listed)
    (weights,) = Path(env["HF_HOME"]).rglob("snapshots/*/model.safetensors")
    blob = weights.resolve()
    data = bytearray(blob.read_bytes())
    data[-1] ^= 1
    blob.write_bytes(data)
    said = refused(fresh, "mine", env | listed | {"HF_HUB_OFFLINE": "1"}, BundleError)
    assert "model.safetensors is not the file that was published" in said


def test_a_copy_that_another_program_began_is_completed(
    fresh: Fresh, repo: Repo, env: dict[str, str], listed: dict[str, str], answer: str
) -> None:
    fresh(load, "mine", env=env | listed)
    cache = Path(env["HF_HOME"]) / "hub" / "models--me--it"
    shutil.rmtree(cache / "trees", ignore_errors=True)
    for name in ("golden.mp4", "model.safetensors"):
        (cache / "snapshots" / repo.head / name).unlink()
        assert fresh(load, "mine", env=env | listed) == [answer]
