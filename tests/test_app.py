"""The page: what it answers, what it refuses, what it leaves behind, and how it behaves in a browser."""

from __future__ import annotations

import base64
import csv
import http.client
import io
import json
import os
import re
import shutil
import signal
import socket
import sys
import threading
import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from media import Picture, Pixels, Sound, write_media
from PIL import Image

import avzoo
from avzoo import cli, hub, registry
from avzoo.app import answer, models, page
from avzoo.app.desk import Desk
from avzoo.errors import AvzooError, UnknownModelError
from avzoo.prediction import Events

pytest.importorskip("gradio", reason="pip install 'avzoo[app]'")
httpx = pytest.importorskip("httpx", reason="comes with gradio")

MODEL = "avsdn-synthetic"
CHROMIUM, DRIVER = shutil.which("chromium"), shutil.which("chromedriver")


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def golden() -> Path:
    """A rendered clip of ten seconds."""
    return hub.locate(registry.parse_ref(MODEL)).folder / "golden.mp4"


@pytest.fixture(scope="module")
def url() -> Iterator[str]:
    with page(MODEL, port=free_port(), max_seconds=12, max_mb=2) as blocks:
        yield blocks.local_url.rstrip("/")


def folder() -> Path:
    return Path(os.environ["GRADIO_TEMP_DIR"])


def uploads() -> list[Path]:
    return [path for path in folder().rglob("*") if path.is_file()]


def upload(url: str, file: Path) -> str:
    with file.open("rb") as content:
        answer = httpx.post(f"{url}/gradio_api/upload", files={"files": (file.name, content)})
    assert answer.status_code == 200, answer.text
    return str(answer.json()[0])


def join(url: str, *data: Any, target: str = "click", tab: str = "me") -> dict[str, Any]:
    """What the page sends when its button is pressed, and what it has to send to take it back."""
    config = httpx.get(f"{url}/config").json()
    function = next(d["id"] for d in config["dependencies"] if d["targets"][0][1] == target and d["backend_fn"])
    question = {"fn_index": function, "session_hash": tab}
    joined = httpx.post(f"{url}/gradio_api/queue/join", json={**question, "data": data})
    assert joined.status_code == 200
    return question | joined.json()


def ask(url: str, *data: Any, target: str = "click") -> Any:
    """What comes back."""
    join(url, *data, target=target)
    with httpx.stream("GET", f"{url}/gradio_api/queue/data?session_hash=me", timeout=60) as lines:
        for line in lines.iter_lines():
            message = json.loads(line.removeprefix("data: ")) if line else {}
            if message.get("msg") == "process_completed":
                return message["output"]["data"] if message["success"] else message["output"]
    raise AssertionError("no answer")


def test_an_upload_is_answered_and_removed(url: str) -> None:
    timeline, said = ask(url, upload(url, golden()), MODEL)
    assert timeline.count("<img") == 10
    assert "sound alone" in timeline
    assert "alone says 0." in said
    assert 'download="golden.csv"' in said
    assert not uploads()


def answered(clip: Path) -> tuple[str, str]:
    """The timeline and the answer of an upload, which is moved to where uploads are."""
    uploads = clip.parent / "uploads"
    (uploads / "a").mkdir(parents=True)
    upload = clip.rename(uploads / "a" / clip.name)
    return Desk(models(MODEL), uploads, max_seconds=12, max_mb=2).ask(str(upload), MODEL, lambda *_: None)


def downloads(said: str) -> dict[str, str]:
    links = re.findall(r'download="([^"]+)" href="data:[^;]+;base64,([^"]+)"', said)
    return {name: base64.b64decode(data).decode() for name, data in links}


def test_the_downloads_hold_all_that_was_said(tmp_path: Path) -> None:
    found = avzoo.explain(golden(), MODEL)
    said = answered(Path(shutil.copy(golden(), tmp_path)))[1]
    assert MODEL in said
    rows = list(csv.DictReader(io.StringIO(downloads(said)["golden.csv"])))
    views = ["sound_alone", "picture_alone", "sound_muted", "picture_frozen"]
    assert list(rows[0]) == ["video", "model", "start", "end", "label", *found.classes, *views]
    assert len(rows) == len(found.segments)
    for index, (row, segment) in enumerate(zip(rows, found.segments, strict=True)):
        label = segment.labels[0][0]
        named = ["golden.mp4", MODEL, f"{segment.start}", f"{segment.end}", label]
        assert [row[name] for name in ("video", "model", "start", "end", "label")] == named
        told = found.evidence(label, segment.start, segment.end)
        shares = [*found.probabilities[index].tolist(), *(told[view] for view in views)]
        assert [float(row[name]) for name in (*found.classes, *views)] == pytest.approx(shares, abs=1e-3)
    whole = json.loads(downloads(said)["golden.json"])
    assert whole["model"] == MODEL
    assert {len(segment["labels"]) for segment in whole["segments"]} == {len(found.classes)}
    assert "remark" not in whole
    scene = replace(found, events=Events(), clip=[(name, 0.1) for name in found.classes])
    assert len(scene.clip or []) > answer.MOST_SCENES
    assert answer.answer(scene).count('<i style="background') == answer.MOST_SCENES
    assert len(json.loads(downloads(answer.answer(scene))["golden.json"])["clip"]) == len(found.classes)


def test_what_is_cancelled_is_given_up(url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    at_work, go_on, over = threading.Event(), threading.Event(), threading.Event()

    def explain(*_: object, on_window: Any, **__: object) -> None:
        at_work.set()
        go_on.wait(20)
        try:
            on_window(1.0)
        except AvzooError:
            over.set()
            raise

    monkeypatch.setattr("avzoo.app.desk.explain", explain)
    question = join(url, upload(url, golden()), MODEL, tab="another")
    assert at_work.wait(20)
    assert httpx.post(f"{url}/gradio_api/cancel", json=question).status_code == 200
    monkeypatch.undo()
    again = upload(url, golden())
    go_on.set()
    assert over.wait(20)
    assert "alone says 0." in ask(url, again, MODEL)[1]  # the same clip, which was not removed with the other
    assert not uploads()


def test_the_same_clip_in_two_tabs_is_two_uploads(url: str, tmp_path: Path) -> None:
    clips = [shutil.copy(golden(), tmp_path / f"{tab}-golden.mp4") for tab in ("0123abcd", "4567abcd")]
    for file in [upload(url, clip) for clip in clips]:
        said = ask(url, file, MODEL)[1]
        assert 'download="golden.json"' in said
        assert "abcd-" not in said
    assert not uploads()


def test_every_model_with_weights_can_be_chosen(url: str) -> None:
    config = httpx.get(f"{url}/config").json()
    (dropdown,) = [c["props"] for c in config["components"] if c["type"] == "dropdown"]
    names = [name for name, _ in dropdown["choices"]]
    assert names[0] == dropdown["value"] == MODEL
    assert set(names) == {n for n in registry.list_models() if registry.find(n).weights}
    (said,) = ask(url, "secrnn-scenemix", target="change")
    assert "scenes mountain_snow, park" in said


@pytest.mark.parametrize(
    "path",
    ["/etc/passwd", str(golden()), __file__, "{folder}/../../etc/passwd", "http://127.0.0.1:9/a.mp4", "{folder}", "\0"],
)
def test_no_path_but_an_upload_is_read(url: str, path: str) -> None:
    assert ask(url, path.format(folder=folder()), MODEL)[1].count("drop it again") == 1
    assert golden().exists()
    assert Path(__file__).exists()


@pytest.mark.parametrize("place", ["/etc/passwd", "https://example.com/a.mp4"])
def test_an_object_in_place_of_a_word_is_refused(url: str, place: str) -> None:
    """Gradio would fetch the address, whichever component it is given for."""
    for crafted in ({"path": place}, {"path": place, "meta": {"_type": "gradio.FileData"}}):
        for data in ([crafted, MODEL], ["", crafted], [[crafted], MODEL], crafted):
            question = {"data": data, "fn_index": 2, "session_hash": "me"}
            assert httpx.post(f"{url}/gradio_api/queue/join", json=question).status_code == 422


def test_a_playlist_leads_nowhere(tmp_path: Path) -> None:
    secret = write_media(tmp_path / "secret.ts", Picture(seconds=1), Sound(seconds=1))
    (tmp_path / "uploads" / "a").mkdir(parents=True)
    playlist = tmp_path / "uploads" / "a" / "a.m3u8"
    playlist.write_text(f"#EXTM3U\n#EXT-X-TARGETDURATION:1\n#EXTINF:1.0,\n{secret}\n#EXT-X-ENDLIST\n")
    desk = Desk(models(MODEL), tmp_path / "uploads", max_seconds=3, max_mb=0.5)
    assert "a.m3u8: is a list of other files" in desk.ask(str(playlist), MODEL, lambda *_: None)[1]


def raw(url: str, path: str, **headers: str) -> int:
    """The status of a request whose path no client tidies up."""
    connection = http.client.HTTPConnection(url.removeprefix("http://"), timeout=20)
    try:
        connection.request("GET", path, headers=headers)
        return connection.getresponse().status
    finally:
        connection.close()


@pytest.mark.parametrize(
    "path",
    [
        "/gradio_api/file=/etc/passwd",
        f"/gradio_api/file={__file__}",
        "/gradio_api/file=../../../../../../etc/passwd",
        "/gradio_api/file=%2Fetc%2Fpasswd",
        "/gradio_api/file=https://example.com/",
        "/gradio_api/file=HTTP://example.com/",
        "/gradio_api/proxy=https://example.com/",
        "/static/../../../../../../etc/passwd",
        "/assets/..%2f..%2f..%2f..%2f..%2fetc%2fpasswd",
        "/file=/etc/passwd",
        "/gradio_api/runs",
        "/gradio_api/run-history/buckets",
        "/gradio_api/deep_link?session_hash=me",
        "/gradio_api/info",
        "/gradio_api/dev/reload",
        "/monitoring",
        "/openapi.json",
    ],
)
def test_nothing_outside_is_served(url: str, path: str) -> None:
    assert raw(url, path) in (400, 403, 404)


def test_only_this_machine_by_its_own_name(url: str) -> None:
    assert raw(url, "/") == 200
    assert raw(url, "/", Host="elsewhere.example:80") == 403
    assert raw(url, "/", Origin=url) == 200
    for other in ("https://elsewhere.example", "http://127.0.0.1:9", "null", "http://["):
        assert raw(url, "/", Origin=other) == 403
    assert url.startswith("http://127.0.0.1:")
    policy = httpx.get(url).headers["content-security-policy"]
    assert "http" not in policy
    address = socket.gethostbyname(socket.gethostname())
    if not address.startswith("127."):
        with pytest.raises(OSError, match=r"."):
            socket.create_connection((address, int(url.rpartition(":")[2])), timeout=2)


def test_a_large_upload_is_cut_off(url: str, tmp_path: Path) -> None:
    large = tmp_path / "large.mp4"
    large.write_bytes(bytes(2_100_000))
    with large.open("rb") as content:
        answer = httpx.post(f"{url}/gradio_api/upload", files={"files": (large.name, content)})
    assert answer.status_code == 413
    assert "maximum allowed size" in answer.text
    assert not uploads()


def test_what_cannot_be_answered_is_a_sentence(tmp_path: Path) -> None:
    desk = Desk(models(MODEL), tmp_path, max_seconds=3, max_mb=0.5)

    def said(name: str) -> str:
        timeline, answer = desk.ask(str(tmp_path / name / name) if name else "", MODEL, lambda *_: None)
        assert not timeline
        assert not (tmp_path / name / name).is_file()
        assert str(tmp_path) not in answer
        return answer

    for name in ("photo.mp4", "broken.mp4", "empty.mp4", "large.mp4", "long.mp4", "eight.mp4"):
        (tmp_path / name).mkdir()
    Image.new("RGB", (64, 64)).save(tmp_path / "photo.mp4" / "photo.mp4", "PNG")
    (tmp_path / "broken.mp4" / "broken.mp4").write_bytes(b"no video" * 100)
    (tmp_path / "large.mp4" / "large.mp4").write_bytes(bytes(600_000))
    write_media(tmp_path / "long.mp4" / "long.mp4", Picture(seconds=4, fps=4), Sound(seconds=4))
    (tmp_path / "empty.mp4" / "empty.mp4").touch()
    huge = Picture(seconds=1, fps=1, size=(4320, 7680), options={"preset": "ultrafast", "crf": "51"}, render=black)
    write_media(tmp_path / "eight.mp4" / "eight.mp4", huge)
    assert "First drop a video" in said("")
    assert "photo.mp4: is a photo" in said("photo.mp4")
    assert "broken.mp4: cannot be opened as media" in said("broken.mp4")
    assert "large.mp4: has 1 MB, and 0.5 MB is the limit" in said("large.mp4")
    assert "long.mp4: is 4 s long, and 3 s is the limit" in said("long.mp4")
    assert "empty.mp4: the file is empty" in said("empty.mp4")
    assert "eight.mp4: has pictures of 7680 x 4320, and 4K is the limit" in said("eight.mp4")


def black(_: int, size: tuple[int, int]) -> Pixels:
    return np.zeros((*size, 3), np.uint8)


@pytest.mark.parametrize("seconds", [0.2, 0.5])
def test_a_clip_that_ends_before_a_segments_middle_is_answered(seconds: float, tmp_path: Path) -> None:
    clip = write_media(tmp_path / "a.mp4", Picture(seconds=seconds, fps=60), Sound(seconds=seconds))
    timeline, said = answered(clip)
    assert timeline.count("<img") == 1
    assert "alone says 0." in said


def test_a_damaged_clip_is_answered_by_what_it_still_holds(tmp_path: Path) -> None:
    clip = write_media(tmp_path / "a.mp4", Picture(seconds=4), Sound(seconds=4), options={"movflags": "faststart"})
    clip.write_bytes(clip.read_bytes()[: clip.stat().st_size * 6 // 10])
    said = answered(clip)[1]
    assert re.search(r">damaged: \d\.\d s of the picture and \d\.\d s of the sound are missing", said)
    assert "are missing" in json.loads(downloads(said)["a.json"])["damage"]
    assert str(tmp_path) not in said


def test_a_silent_or_black_clip_is_said_to_be(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    empty = write_media(tmp_path / "a.mp4", Picture(seconds=2, fps=4, render=black), Sound(seconds=2, clicks=()))
    cli.main(["predict", str(empty), "--model", MODEL])
    printed = capsys.readouterr().out
    said = answered(empty)[1]
    for text in (printed, said, downloads(said)["a.json"]):
        assert "silent: nothing is heard in it; black: nothing is seen in the pictures" in text


def test_too_little_memory_is_a_sentence(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    desk = Desk(models(MODEL), tmp_path, max_seconds=12, max_mb=2)
    (tmp_path / "a").mkdir()
    cpu = RuntimeError("DefaultCPUAllocator: can't allocate memory: you tried to allocate 40000000000000 bytes.")
    for error in (MemoryError(), cpu, torch.OutOfMemoryError("CUDA out of memory.")):
        monkeypatch.setattr("avzoo.app.desk.explain", raising(error))
        clip = Path(shutil.copy(golden(), tmp_path / "a" / "0123abcd-a.mp4"))
        assert ">a.mp4: needs more memory than there is: cut it" in desk.ask(str(clip), MODEL, lambda *_: None)[1]
        assert not clip.exists()


def raising(error: BaseException) -> Any:
    def explain(*_: object, **__: object) -> None:
        raise error

    return explain


def test_the_end_gives_up_what_is_being_answered_and_waits_until_it_is(tmp_path: Path) -> None:
    desk = Desk(models(MODEL), tmp_path, max_seconds=12, max_mb=2)
    (tmp_path / "a").mkdir()
    clip = shutil.copy(golden(), tmp_path / "a" / "a.mp4")
    at_work, go_on, said = threading.Event(), threading.Event(), []

    def tell(*_: object) -> None:
        at_work.set()
        go_on.wait(20)

    asking = threading.Thread(target=lambda: said.append(desk.ask(str(clip), MODEL, tell)))
    ending = threading.Thread(target=desk.end)
    asking.start()
    at_work.wait(20)
    ending.start()
    ending.join(0.5)
    assert ending.is_alive()
    go_on.set()
    ending.join(20)
    asking.join(20)
    assert not ending.is_alive()
    assert "`avzoo app` was ended" in said[0][1]
    assert not clip.exists()


@pytest.mark.parametrize("stream", [Picture(seconds=1), Sound(seconds=1)], ids=["picture", "sound"])
def test_what_has_one_modality_is_answered_by_it_alone(stream: Picture | Sound, tmp_path: Path) -> None:
    (tmp_path / "a").mkdir()
    clip = write_media(tmp_path / "a" / "a.mp4", stream)
    timeline, said = Desk(models(MODEL), tmp_path, max_seconds=3, max_mb=0.5).ask(str(clip), MODEL, lambda *_: None)
    assert ("<img" in timeline) == isinstance(stream, Picture)
    assert f"By the {type(stream).__name__.lower()} alone." in said
    assert 'download="a.json"' in said


def test_a_recording_of_the_camera_declares_no_length_and_has_one(tmp_path: Path) -> None:
    picture = Picture(codec="libvpx", seconds=3, fps=8, b_frames=0, options={"deadline": "realtime"})
    file = write_media(
        tmp_path / "a.webm", picture, Sound(codec="libopus", rate=48_000, seconds=3), options={"live": "1"}
    )
    desk = Desk(models(MODEL), tmp_path, max_seconds=5, max_mb=0.5)
    assert desk.check(file).duration == pytest.approx(3, abs=0.1)


def test_an_abandoned_upload_goes_by_itself(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("avzoo.app.ABANDONED", (1, 1))
    monkeypatch.setenv("GRADIO_TEMP_DIR", "")  # set back afterwards
    with page(MODEL, port=free_port()) as blocks:
        file = Path(upload(blocks.local_url.rstrip("/"), golden()))
        until = time.monotonic() + 10
        while file.exists() and time.monotonic() < until:
            time.sleep(0.1)
        assert not file.exists()


def test_a_file_name_is_no_html(tmp_path: Path) -> None:
    desk = Desk(models(MODEL), tmp_path, max_seconds=3, max_mb=0.5)
    (tmp_path / "a").mkdir()
    evil = tmp_path / "a" / "<img src=x onerror=alert(1)>.mp4"
    evil.write_bytes(b"")
    assert "<img" not in desk.ask(str(evil), MODEL, lambda *_: None)[1]


def test_what_can_be_chosen() -> None:
    shipped = hub.locate(registry.parse_ref(MODEL)).folder
    assert next(iter(models(str(shipped)).items())) == (str(shipped), registry.Ref(folder=shipped))
    own = models(f"./finetuned/{MODEL}")
    assert [own[f"./finetuned/{MODEL}"].folder, own[MODEL].folder] == [Path("finetuned", MODEL), None]
    with pytest.raises(UnknownModelError, match="did you mean 'avsdn-avemix'"):
        models("avsdn-avmix")


def test_a_model_that_cannot_be_loaded_ends_it_at_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("GRADIO_TEMP_DIR", "")  # set back afterwards
    with pytest.raises(AvzooError, match=r"config\.json"), page(f"{tmp_path}/"):
        pass


def test_a_port_that_is_taken_is_said(url: str) -> None:
    before = folder()
    with pytest.raises(AvzooError, match="--port"), page(MODEL, port=int(url.rpartition(":")[2])):
        pass
    assert folder() == before


def test_without_gradio_the_extra_is_named(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.setenv("GRADIO_TEMP_DIR", "")
    monkeypatch.setitem(sys.modules, "gradio", None)
    with pytest.raises(SystemExit):
        cli.main(["app"])
    assert "pip install 'avzoo[app]'" in capsys.readouterr().err
    assert "avzoo-app-" in folder().name
    assert not folder().exists()


@pytest.fixture
def signals() -> Iterator[None]:
    """Those that end a program, as they are in a terminal; set back afterwards."""
    before = {one: signal.signal(one, signal.SIG_DFL) for one in (signal.SIGTERM, signal.SIGHUP)}
    before[signal.SIGINT] = signal.signal(signal.SIGINT, signal.default_int_handler)  # a job in the background has none
    yield
    for one, handler in before.items():
        signal.signal(one, handler)


@pytest.mark.usefixtures("signals")
@pytest.mark.parametrize("stop", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP])
def test_an_interrupt_ends_it_and_removes_all(
    url: str, stop: signal.Signals, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("GRADIO_TEMP_DIR", "")  # set back afterwards
    left: list[Path] = []

    def interrupted() -> None:
        left.append(folder())
        (folder() / "upload").mkdir()
        signal.raise_signal(stop)

    port = free_port()
    monkeypatch.setattr("avzoo.commands.app.wait", interrupted)
    cli.main(["app", "--port", str(port), "--model", MODEL])
    printed = capsys.readouterr()
    assert printed.out == f"avzoo is at http://127.0.0.1:{port}/  (Ctrl+C ends it)\n"
    assert not printed.err
    assert left
    assert not left[0].exists()
    with pytest.raises(httpx.ConnectError):
        httpx.get(f"http://127.0.0.1:{port}/")
    assert httpx.get(url).status_code == 200


@pytest.fixture
def browser() -> Iterator[Any]:
    if not (CHROMIUM and DRIVER):
        pytest.skip("needs chromium and chromedriver")
    webdriver = pytest.importorskip("selenium.webdriver", reason="pip install selenium")
    options = webdriver.ChromeOptions()
    options.binary_location = CHROMIUM
    for flag in ("--headless=new", "--no-sandbox", "--disable-gpu", "--window-size=1280,1000"):
        options.add_argument(flag)
    options.set_capability("goog:loggingPrefs", {"browser": "ALL", "performance": "ALL"})
    browser = webdriver.Chrome(options=options, service=webdriver.ChromeService(DRIVER))
    yield browser
    browser.quit()


class Tab:
    """The page in a browser."""

    def __init__(self, browser: Any, url: str) -> None:
        from selenium.webdriver.support.ui import WebDriverWait

        self.browser = browser
        self.soon = WebDriverWait(browser, 60)
        browser.get(url)
        self.soon.until(lambda _: self.run("return window.avzoo") and self.found("#clip input[type=file]"))

    def found(self, selector: str) -> Any:
        return self.soon.until(lambda _: self.browser.find_elements("css selector", selector))[0]

    def run(self, script: str) -> Any:
        return self.browser.execute_script(f"const video = document.querySelector('#clip video'); {script}")

    def drop(self, clip: Path) -> None:
        """In place of what is there."""
        for clear in self.browser.find_elements("css selector", "#clip button[aria-label=Clear]"):
            clear.click()
        self.found("#clip input[type=file]").send_keys(str(clip))
        self.soon.until(lambda _: f"-{clip.name}" in (self.run("return video?.src") or ""))

    def choose(self, model: str) -> None:
        """Another model."""
        self.found("#model input").click()
        menu = "#model ul li, ul[role=listbox] li"
        self.soon.until(
            lambda _: [one for one in self.browser.find_elements("css selector", menu) if model in one.text]
        )[0].click()


def test_what_a_browser_cannot_do_is_a_sentence(
    url: str, browser: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    tab = Tab(browser, url)
    found, run, soon = tab.found, tab.run, tab.soon
    unseen = found("#unseen .avzoo")
    assert not unseen.is_displayed()
    found("#clip input[type=file]").send_keys(
        str(write_media(tmp_path / "a.avi", Picture(codec="mpeg4", seconds=1), Sound(codec="libmp3lame", seconds=1)))
    )
    soon.until(lambda _: unseen.is_displayed())
    assert "cannot show the clip" in unseen.text
    found("#ask").click()
    found("#answer .because")
    assert "Timeline: " in found("#timeline [role=img]").get_attribute("aria-label")
    found("#clip button[aria-label=Clear]").click()  # another can be dropped
    found("#clip input[type=file]").send_keys(str(golden()))
    soon.until(lambda _: run("return video?.readyState"))
    soon.until(lambda _: not unseen.is_displayed())
    for key in ("\ue014", "\ue014", "\ue012", "\ue004"):  # arrow right, right, left; tab
        found("#clip .controls [role=button]").send_keys(key)
    assert run("return [video.currentTime, video.paused]") == [1, True]
    monkeypatch.setattr("avzoo.app.desk.explain", raising(LookupError("a secret")))
    found("#ask").click()
    assert "Something went wrong: see the terminal" in found("#answer .sorry").text
    assert found("#answer").text == found("#answer .sorry").text
    assert "secret" not in browser.page_source
    assert "LookupError: a secret" in capfd.readouterr().err
    assert not uploads()


def test_in_a_browser(url: str, browser: Any, tmp_path: Path) -> None:
    tab = Tab(browser, url)
    found, run, soon = tab.found, tab.run, tab.soon
    run(f"""
        const dropped = new DataTransfer();
        dropped.items.add(new File([new Uint8Array({list(golden().read_bytes())})], "A.MKV"));
        document.querySelector("#clip input[type=file]").dispatchEvent(
            new DragEvent("drop", {{ dataTransfer: dropped, bubbles: true, cancelable: true }}));
    """)
    assert "-A.MKV" in found("#clip video").get_attribute("src")
    found("#clip button[aria-label=Clear]").click()
    phone = tmp_path / "IMG_0042.MOV"  # no type that Chromium knows on Linux
    shutil.copy(golden(), phone)
    found("#clip input[type=file]").send_keys(str(phone))
    assert "-IMG_0042.MOV" in found("#clip video").get_attribute("src")
    found("#ask").click()
    assert "alone says 0." in found("#answer .because").text
    first = found("#answer .says").text
    assert found("#answer .take a").text == "IMG_0042.json"
    where = []
    for second in (2.0, 8.0):
        run(f"video.currentTime = {second}")
        soon.until(lambda _, at=second: abs(run("return video.currentTime") - at) < 0.1)
        time.sleep(0.2)  # the next picture of the page
        lane, head = found("#timeline .lane").rect, found("#timeline .playhead").rect
        where.append((head["x"] + head["width"] / 2 - lane["x"]) / lane["width"])
    assert where == pytest.approx([0.2, 0.8], abs=0.02)
    run("video.currentTime = 0; video.muted = true; video.play()")
    card = "document.querySelector('#timeline .avzoo')"
    soon.until(lambda _: float(run(f"return {card}.style.getPropertyValue('--at')")) > 0.05)
    assert run("return video.error") is None  # it plays on from the browser's copy:
    assert [file.name[9:] for file in uploads()] == ["A.MKV"]  # that nobody asked about
    found("#timeline .lane").click()  # in the middle
    soon.until(lambda _: abs(run("return video.currentTime") - 5) < 1.5)
    tab.choose("joint")
    soon.until(lambda _: "scenes" in found("#knows").text)
    assert not found("#answer").text + found("#timeline").text
    found("#ask").click()  # and is sent again
    soon.until(lambda _: found("#answer .says").text not in ("", first))
    assert found("#answer .says").text.split(",")[0] in found("#knows").text
    browser.save_screenshot(str(tmp_path / "page.png"))
    assert (tmp_path / "page.png").stat().st_size > 50_000
    asked = [json.loads(entry["message"])["message"] for entry in browser.get_log("performance")]
    asked = [entry["params"]["request"]["url"] for entry in asked if entry["method"] == "Network.requestWillBeSent"]
    assert len(asked) > 20
    assert [one for one in asked if not one.startswith((f"{url}/", "data:", f"blob:{url}/"))] == []
    assert [entry for entry in browser.get_log("browser") if entry["level"] == "SEVERE"] == []


def test_an_answer_is_of_the_clip_and_the_model_that_are_there(
    url: str, browser: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    at_work, go_on, explain = threading.Event(), threading.Event(), avzoo.explain

    def held(*given: Any, on_window: Any, **options: Any) -> Any:
        at_work.set()
        go_on.wait(20)
        on_window(0.0)
        return explain(*given, on_window=on_window, **options)

    monkeypatch.setattr("avzoo.app.desk.explain", held)
    tab = Tab(browser, url)
    found = tab.found
    a, b = (Path(shutil.copy(golden(), tmp_path / name)) for name in ("a.mp4", "b.mp4"))

    def begin() -> None:
        at_work.clear()
        go_on.clear()
        found("#ask").click()
        assert at_work.wait(20)

    def nothing_comes() -> bool:
        go_on.set()
        tab.soon.until(lambda _: not [file for file in uploads() if file.parent.name.startswith("tmp")])
        time.sleep(0.5)  # it would have come by now
        return not found("#answer").text + found("#timeline").text

    tab.drop(a)
    begin()
    tab.drop(b)
    assert nothing_comes()
    found("#ask").click()
    assert found("#answer .head").text.split() == ["b.mp4", MODEL, "·", "10.0", "s"]
    begin()
    found("#clip button[aria-label=Clear]").click()
    assert nothing_comes()
    tab.drop(b)
    begin()
    tab.choose("avsdn-avemix")
    assert nothing_comes()
    found("#ask").click()
    assert "avsdn-avemix" in found("#answer .head").text
    tab.run("""
        const fetched = window.fetch;
        window.fetch = async (...asked) => {
          if (String(asked[0]).includes("file=")) await new Promise((done) => setTimeout(done, 2000));
          return fetched(...asked);
        };
    """)
    tab.drop(a)
    found("#ask").click()
    tab.drop(b)  # before the other was sent
    assert "b.mp4" in found("#answer .head").text
    assert "b.mp4" not in tab.run("return video.src")  # it plays from the browser's copy
