"""A small Hugging Face Hub on loopback, with which the real `huggingface_hub` client talks as with the big one.

It keeps everything in memory: repositories, commits, tags, tokens that may write or only read. `log` is every request
it saw; the attributes of `Faults` make it misbehave. No Hub server can be installed from a registry, hence this one.
"""

from __future__ import annotations

import asyncio
import base64
import hashlib
import json
import socket
import threading
import time
from collections.abc import AsyncIterator, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

import uvicorn
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse, Response, StreamingResponse
from starlette.routing import Route
from starlette.types import Receive, Scope, Send

WRITE, READ, STRANGER = "hf_write", "hf_read", "hf_stranger"  # a stranger is logged in, and was granted nothing
LARGE = (".safetensors", ".mp4", ".png")  # what the Hub keeps as LFS


@dataclass
class Faults:
    """What goes wrong from now on; `GET` of a file's content is meant by body."""

    truncate: int = 0  # bodies that stop half way, then all is well again
    flip: bool = False  # one byte of each body is another
    hang: float = 0.0  # s before any answer
    pause: float = 0.0  # s in the middle of each body
    silence: float = 0.0  # s between the head and the first byte of each body
    status: int = 0  # every answer
    stale: bool = False  # somebody else commits between the client's look and its commit


@dataclass
class Repo:
    private: bool = False
    gated: bool = False
    commits: dict[str, dict[str, bytes]] = field(default_factory=dict)
    head: str = ""
    tags: dict[str, str] = field(default_factory=dict)

    def commit(self, files: dict[str, bytes]) -> str:
        text = f"{self.head} {sorted((path, _sha256(data)) for path, data in files.items())}"
        self.head = hashlib.sha1(text.encode()).hexdigest()
        self.commits[self.head] = dict(files)
        return self.head

    def resolve(self, revision: str) -> str | None:
        commit = {"main": self.head, **self.tags}.get(revision, revision)
        return commit if commit in self.commits else None


def _sha256(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()


def _oid(path: str, data: bytes) -> str:
    return _sha256(data) if path.endswith(LARGE) else hashlib.sha1(b"blob %d\0" % len(data) + data).hexdigest()


def _refuse(status: int, code: str, message: str) -> Response:
    return JSONResponse({"error": message}, status, {"X-Error-Code": code, "X-Error-Message": message})


class HubServer:
    """`with HubServer().running() as hub:`; `hub.stop()` and `hub.start()` take it down and bring it back."""

    def __init__(self) -> None:
        self.repos: dict[str, Repo] = {}
        self.objects: dict[str, bytes] = {}
        self.log: list[tuple[str, str]] = []
        self.faults = Faults()
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            self.port = free.getsockname()[1]
        self.url = f"http://127.0.0.1:{self.port}"
        model, here = "/api/models/{owner}/{name}", "/{owner}/{name}"
        self.app = Starlette(
            routes=[
                Route("/api/repos/create", self._create, methods=["POST"]),
                Route("/api/validate-yaml", self._validate, methods=["POST"]),
                Route(model, self._info),
                Route(model + "/revision/{revision}", self._info),
                Route(model + "/tree/{revision}", self._tree),
                Route(model + "/refs", self._refs),
                Route(model + "/preupload/{revision}", self._preupload, methods=["POST"]),
                Route(model + "/commit/{revision}", self._commit, methods=["POST"]),
                Route(model + "/tag/{revision}", self._tag, methods=["POST"]),
                Route(here + ".git/info/lfs/objects/batch", self._batch, methods=["POST"]),
                Route("/lfs/{oid}", self._store, methods=["PUT", "POST"]),
                Route(here + "/resolve/{revision}/{path:path}", self._resolve, methods=["GET", "HEAD"]),
            ],
            exception_handlers={Refused: _answer},
        )

    # -- running -----------------------------------------------------------------------------------------------------

    @contextmanager
    def running(self) -> Iterator[HubServer]:
        self.start()
        try:
            yield self
        finally:
            self.stop()

    def start(self) -> None:
        config = uvicorn.Config(
            self._entrance,
            port=self.port,
            log_level="critical",
            lifespan="off",
            http="h11",
            ws="none",
            interface="asgi3",
        )
        self._server = uvicorn.Server(config)
        self._thread = threading.Thread(target=self._server.run, daemon=True)
        self._thread.start()
        while not self._server.started:
            time.sleep(0.01)

    def stop(self) -> None:
        self._server.should_exit = self._server.force_exit = True
        self._thread.join()

    async def _entrance(self, scope: Scope, receive: Receive, send: Send) -> None:
        self.log.append((scope["method"], scope["path"]))
        await asyncio.sleep(self.faults.hang)
        if self.faults.status:
            await Response("trouble", self.faults.status)(scope, receive, send)
        else:
            await self.app(scope, receive, send)

    def downloads(self) -> list[str]:
        """The files whose content was asked for, in order."""
        return [path.rpartition("/")[2] for method, path in self.log if method == "GET" and "/resolve/" in path]

    # -- who may do what ---------------------------------------------------------------------------------------------

    def _open(self, request: Request, *, write: bool = False) -> Repo:
        token = request.headers.get("authorization", "").removeprefix("Bearer ")
        if token not in ("", WRITE, READ, STRANGER):
            raise Refused(_refuse(401, "", "Invalid credentials in Authorization header"))
        repo = self.repos.get("{owner}/{name}".format(**request.path_params))
        if repo is None or (repo.private and token not in (WRITE, READ)):
            raise Refused(_refuse(404 if token else 401, "RepoNotFound", "Repository not found"))
        if write and token != WRITE:
            raise Refused(_refuse(403 if token else 401, "", "You don't have the rights to write to this repository"))
        if repo.gated and "/resolve/" in request.url.path and token not in (WRITE, READ):
            raise Refused(_refuse(403 if token else 401, "GatedRepo", "Access to this model is restricted"))
        return repo

    def _at(self, request: Request, repo: Repo) -> str:
        commit = repo.resolve(request.path_params.get("revision", "main"))
        if commit is None:
            raise Refused(_refuse(404, "RevisionNotFound", "Invalid rev id"))
        return commit

    # -- reading -----------------------------------------------------------------------------------------------------

    async def _info(self, request: Request) -> Response:
        repo = self._open(request)
        commit = self._at(request, repo)
        siblings = [{"rfilename": path} for path in repo.commits[commit]]
        name = "{owner}/{name}".format(**request.path_params)
        return JSONResponse({"id": name, "sha": commit, "siblings": siblings, "private": repo.private})

    async def _refs(self, request: Request) -> Response:
        repo = self._open(request)
        tags = [{"name": t, "ref": f"refs/tags/{t}", "targetCommit": c} for t, c in repo.tags.items()]
        branches = [{"name": "main", "ref": "refs/heads/main", "targetCommit": repo.head}]
        return JSONResponse({"branches": branches, "tags": tags, "converts": []})

    async def _tree(self, request: Request) -> Response:
        repo = self._open(request)
        rows: list[dict[str, Any]] = []
        for path, data in repo.commits[self._at(request, repo)].items():
            rows.append({"type": "file", "path": path, "size": len(data), "oid": _oid("", data)})
            if path.endswith(LARGE):
                rows[-1]["lfs"] = {"oid": _sha256(data), "size": len(data), "pointerSize": 130}
        return JSONResponse(rows)

    async def _resolve(self, request: Request) -> Response:
        repo = self._open(request)
        commit = self._at(request, repo)
        path = request.path_params["path"]
        data = repo.commits[commit].get(path)
        if data is None:
            return _refuse(404, "EntryNotFound", "Entry not found")
        headers = {"ETag": f'"{_oid(path, data)}"', "X-Repo-Commit": commit, "Accept-Ranges": "bytes"}
        if request.method == "HEAD":
            return Response(headers={**headers, "Content-Length": str(len(data))})
        if self.faults.flip:
            data = data[:-1] + bytes([data[-1] ^ 1])
        start = int(request.headers.get("range", "bytes=0-").removeprefix("bytes=").partition("-")[0])
        part = data[start:]
        headers["Content-Length"] = str(len(part))
        if start:
            headers["Content-Range"] = f"bytes {start}-{len(data) - 1}/{len(data)}"
        if self.faults.truncate:
            self.faults.truncate -= 1
            part = part[: len(part) // 2]  # uvicorn then closes the connection, as a server that dies

        async def body() -> AsyncIterator[bytes]:
            if self.faults.silence:
                yield b""  # the head goes out with it
                await asyncio.sleep(self.faults.silence)
            yield part[: len(part) // 2]
            await asyncio.sleep(self.faults.pause)
            yield part[len(part) // 2 :]

        return StreamingResponse(body(), 206 if start else 200, headers)

    # -- writing -----------------------------------------------------------------------------------------------------

    async def _create(self, request: Request) -> Response:
        wanted = await request.json()
        name = f"{wanted['organization']}/{wanted['name']}"
        token = request.headers.get("authorization", "").removeprefix("Bearer ")
        if token != WRITE:
            known = token in (READ, STRANGER)
            message = "You don't have the rights to create a model" if known else "Invalid username or password."
            return _refuse(403 if known else 401, "", message)
        if name in self.repos:
            return JSONResponse({"error": "exists", "url": f"{self.url}/{name}"}, 409)
        repo = self.repos[name] = Repo(private=wanted.get("private") or wanted.get("visibility") == "private")
        repo.commit({".gitattributes": b"*.safetensors filter=lfs\n"})
        return JSONResponse({"url": f"{self.url}/{name}", "name": name})

    async def _validate(self, request: Request) -> Response:
        content = (await request.json())["content"]
        errors = [] if content.startswith("---\n") else [{"message": "no metadata"}]
        return JSONResponse({"errors": errors, "warnings": []}, 400 if errors else 200)

    async def _preupload(self, request: Request) -> Response:
        repo = self._open(request, write=True)
        files = repo.commits[self._at(request, repo)]
        answer = [
            {
                "path": path,
                "uploadMode": "lfs" if path.endswith(LARGE) else "regular",
                "shouldIgnore": False,
                "oid": _oid(path, files[path]) if path in files else None,
            }
            for path in (file["path"] for file in (await request.json())["files"])
        ]
        return JSONResponse({"files": answer})

    async def _batch(self, request: Request) -> Response:
        self._open(request, write=True)
        objects = (await request.json())["objects"]
        for item in objects:
            if item["oid"] not in self.objects:
                href = f"{self.url}/lfs/{item['oid']}"
                item["actions"] = {"upload": {"href": href}, "verify": {"href": href}}
        return JSONResponse({"transfer": "basic", "objects": objects})

    async def _store(self, request: Request) -> Response:
        oid = request.path_params["oid"]
        if request.method == "PUT":
            self.objects[oid] = await request.body()
        return Response(status_code=200 if _sha256(self.objects.get(oid, b"")) == oid else 422)

    async def _commit(self, request: Request) -> Response:
        repo = self._open(request, write=True)
        if self.faults.stale:
            repo.commit({**repo.commits[repo.head], "other.md": b"somebody else"})
        files = dict(repo.commits[repo.head])
        for line in (await request.body()).splitlines():
            item = json.loads(line)
            value = item["value"]
            if item["key"] == "header" and value.get("parentCommit") not in (None, repo.head):
                return _refuse(412, "", "A commit has happened since. Please refresh and try again.")
            if item["key"] == "file":
                files[value["path"]] = base64.b64decode(value["content"])
            elif item["key"] == "lfsFile":
                files[value["path"]] = self.objects[value["oid"]]
            elif item["key"] == "deletedFile":
                del files[value["path"]]
        commit = repo.commit(files)
        name = "{owner}/{name}".format(**request.path_params)
        return JSONResponse({"commitUrl": f"{self.url}/{name}/commit/{commit}", "commitOid": commit})

    async def _tag(self, request: Request) -> Response:
        repo = self._open(request, write=True)
        tag = (await request.json())["tag"]
        if tag in repo.tags:
            return _refuse(409, "", "Tag reference exists already")
        repo.tags[tag] = self._at(request, repo)
        return JSONResponse({})


class Refused(Exception):
    """An answer, raised where it is known."""

    def __init__(self, response: Response) -> None:
        super().__init__(response.status_code)
        self.response = response


async def _answer(_: Request, refused: Exception) -> Response:
    assert isinstance(refused, Refused)
    return refused.response
