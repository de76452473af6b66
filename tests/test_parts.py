"""A job array answers every file once, whatever is killed or added; one command says whether all is there."""

from __future__ import annotations

import contextlib
import json
import re
from pathlib import Path

import pytest

from avzoo import cli, registry
from avzoo.errors import AvzooError, DataNotFoundError
from avzoo.parts import ARRAY, Answers, Part, merge, read

FILES = [f"{number}.mp4" for number in range(40)]


@pytest.mark.parametrize("text", ["0/3", "4/3", "3", "a/b", "-1/3", "1/0", ""])
def test_what_is_no_part(text: str) -> None:
    with pytest.raises(AvzooError, match="expected i/n"):
        Part.parse(text)


def test_parts_are_disjoint_and_whole() -> None:
    parts = [{name for name in FILES if Part(index, 3).has(name)} for index in (1, 2, 3)]
    assert sorted(name for part in parts for name in part) == sorted(FILES)
    assert min(len(part) for part in parts) > 5


@pytest.mark.parametrize(
    ("array", "expected"), [("3 0 15 1 16", "4/16"), ("4 1 16 1 16", "4/16"), ("6 0 14 2 8", "4/8")]
)
def test_the_part_of_an_array(array: str, expected: str, monkeypatch: pytest.MonkeyPatch) -> None:
    for name, value in zip(ARRAY, array.split(), strict=True):
        monkeypatch.setenv(name, value)
    assert str(Part.parse("slurm")) == expected


def test_no_array() -> None:
    with pytest.raises(AvzooError, match="no task of a Slurm job array"):
        Part.parse("slurm")


@pytest.mark.parametrize(
    ("array", "said"),  # as Slurm says it of --array=3,5, of 7 and of 3-5
    [("5 3 5 1 2", "2 tasks from 3 to 5"), ("7 7 7 1 1", "1 tasks from 7 to 7"), ("4 3 5 1 3", "3 tasks from 3 to 5")],
)
def test_some_tasks_of_an_array_again(array: str, said: str, monkeypatch: pytest.MonkeyPatch) -> None:
    for name, value in zip(ARRAY, array.split(), strict=True):
        monkeypatch.setenv(name, value)
    with pytest.raises(AvzooError, match=rf"{said}, so .*: give --part \$SLURM_ARRAY_TASK_ID/n"):
        Part.parse("slurm")


def answer(name: str, **more: str) -> dict[str, str]:
    return {"video": name, "model": "a", **more}


def fill(folder: Path, count: int = 2) -> None:
    for index in range(1, count + 1):
        answers = Answers(folder, Part(index, count), "a")
        for name in FILES:
            if Part(index, count).has(name):
                answers.write(answer(name))
        answers.finish()


def test_a_killed_part_goes_on_behind_its_last_whole_line(tmp_path: Path) -> None:
    killed = Answers(tmp_path, Part(), "a")
    killed.write(answer("0.mp4"))
    killed.write({"video": "1.mp4", "error": "broken"})
    killed._open().write('{"video": "2.m')
    killed._open().close()
    with pytest.raises(AvzooError, match="another process is at work on part 1/1"):
        Answers(tmp_path, Part(), "a")
    with pytest.raises(DataNotFoundError, match="not finished yet: 1/1"):
        merge(tmp_path)
    killed._lock.release()  # as its end does
    again = Answers(tmp_path, Part(), "a")
    assert again.done == {"0.mp4"}  # what failed is tried again
    again.write(answer("1.mp4"))
    again.finish()
    assert [row["video"] for row in merge(tmp_path)] == ["0.mp4", "1.mp4"]
    with pytest.raises(AvzooError, match="answers of a, not of b"):
        Answers(tmp_path, Part(), "b")


def test_what_is_not_whole_is_not_merged(tmp_path: Path) -> None:
    with pytest.raises(DataNotFoundError, match="holds no answers"):
        merge(tmp_path)
    fill(tmp_path)
    assert len(merge(tmp_path, map(Path, FILES))) == len(FILES)
    cli.main(["merge", str(tmp_path), "--out", str(tmp_path / "all.jsonl")])  # nothing failed: exit status 0
    assert len(read(tmp_path / "all.jsonl")) == len(FILES)
    assert len(merge(tmp_path, [Path(name).absolute() for name in FILES])) == len(FILES)  # the same, spelt otherwise
    with pytest.raises(DataNotFoundError, match=r"1 videos have no answer: new\.mp4"):
        merge(tmp_path, [Path("new.mp4")])
    second = tmp_path / "part-00002-of-00002.jsonl"
    whole = second.read_text()
    second.write_text(whole + whole.splitlines()[0] + "\n")
    with pytest.raises(AvzooError, match="answered twice"):
        merge(tmp_path)
    second.write_text(whole.replace('"a"', '"b"'))
    with pytest.raises(AvzooError, match="answers of a and of b"):
        merge(tmp_path)
    for damaged, said in (
        ("nonsense\n", "Expecting value"),
        (whole[:-5], "it is cut short"),
        (whole + '{"model": "a"}\n', "line [0-9]+ is no answer"),
        ('{"video": "0.mp4"}\n', "line 1 is no answer"),
    ):
        second.write_text(damaged)
        with pytest.raises(AvzooError, match=rf"of-00002\.jsonl is damaged \({said}.*\): delete it and run its part"):
            merge(tmp_path)
    second.unlink()
    with pytest.raises(DataNotFoundError, match="not finished yet: 2/2"):
        merge(tmp_path)
    with pytest.raises(AvzooError, match="holds parts of 2, not of 3: give part i/2, or another folder"):
        fill(tmp_path, 3)  # such as the first 3 tasks of an array again
    second.with_name("part-00003-of-00003.jsonl").write_text(whole)
    with pytest.raises(AvzooError, match="parts of 2 and of 3"):
        merge(tmp_path)
    second.with_name("part-0002-of-0003.jsonl").write_text(whole)
    with pytest.raises(AvzooError, match=r"part-0002-of-0003\.jsonl is no part that .* wrote: move it elsewhere"):
        merge(tmp_path)


@pytest.mark.usefixtures("cheap_backbones")
def test_predict_by_parts_is_predict(rendered: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    videos = tmp_path / "videos"
    videos.mkdir()
    clips = sorted(rendered.rglob("*.mp4"))[:4]
    for clip in clips:
        (videos / clip.name).symlink_to(clip)
    (videos / "broken.mp4").write_bytes(b"no video")
    ask = ["predict", str(videos), "--model", "avsdn-synthetic"]
    with pytest.raises(SystemExit, match=r"^1$"):  # one file is broken
        cli.main([*ask, "--json"])
    expected = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    for index in (1, 2, 3):
        with contextlib.suppress(SystemExit):  # of the part with the broken one
            cli.main([*ask, "--out", str(tmp_path / "answers"), "--part", f"{index}/3"])
    assert len(re.findall(r": \d answered, 1 failed, 0 from before\n", capsys.readouterr().err)) == 1
    with pytest.raises(SystemExit) as stop:
        cli.main(["merge", str(tmp_path / "answers"), str(videos), "--out", str(tmp_path / "all.jsonl")])
    assert stop.value.code == 1  # and the file is there all the same
    said = capsys.readouterr()
    assert "all.jsonl: 5 videos\n" in said.out
    assert f'avzoo: 1 of 5 failed, see "error" in {tmp_path / "all.jsonl"}\n' == said.err
    merged = [json.loads(line) for line in (tmp_path / "all.jsonl").read_text().splitlines()]
    assert merged == sorted(expected, key=lambda row: row["video"])
    with pytest.raises(AvzooError, match="--part needs --out"):
        cli._run([*ask, "--part", "1/3"])
    with pytest.raises(AvzooError, match="part '': expected i/n"):  # a variable that is not set
        cli._run([*ask, "--out", str(tmp_path / "new"), "--part", ""])


@pytest.mark.usefixtures("cheap_backbones")
def test_extract_by_parts_is_extract(rendered: Path, tmp_path: Path) -> None:
    cache = tmp_path / "cache"
    recipe = ["--config", str(registry.asset("recipes/avsdn-avemix.yaml")), "--data.root", str(rendered)]
    extract = ["extract", *recipe, "--data.cache", str(cache), "--data.workers", "0"]
    counts = []
    for part in ("1/2", "2/2"):
        cli.main([*extract, "--part", part])
        counts.append(len([*cache.rglob("*.safetensors")]))
    assert 0 < counts[0] < counts[1] == 2 * 12  # sound and pictures of every clip
    next(cache.rglob("*.safetensors")).unlink()
    cli.main(extract)  # whatever the parts left
    assert len([*cache.rglob("*.safetensors")]) == counts[1]
