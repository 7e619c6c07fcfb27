"""A Hugging Face Hub on this machine's loopback, for tests: models, commits, LFS uploads, private repositories.

It speaks what the unmodified huggingface_hub client says (with HF_HUB_DISABLE_XET=1: with hf_xet the client assumes Xet
storage and asks nobody). Like the real one it sends large files from another host, here "localhost", by redirection.
`hub.fault(...)` makes chosen requests fail.
"""

from __future__ import annotations

import base64
import hashlib
import json
import re
import threading
from collections.abc import Callable
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any
from urllib.parse import parse_qs, quote, unquote, urlsplit

TOKEN = "hf_test"
LARGE = (".safetensors", ".bin", ".onnx")
_ID = r"(?P<repo>[\w.-]+/[\w.-]+)"


@dataclass
class Repo:
    """Commits from their hash to {path: sha256 of the content}, and branches and tags from their name to a commit."""

    private: bool
    commits: dict[str, dict[str, str]] = field(default_factory=dict)
    refs: dict[str, str] = field(default_factory=dict)

    def commit(self, files: dict[str, str], branch: str = "main") -> str:
        oid = hashlib.sha1(json.dumps([files, len(self.commits)]).encode()).hexdigest()
        self.commits[oid], self.refs[branch] = files, oid
        return oid

    def find(self, revision: str) -> str | None:
        return self.refs.get(revision) or (revision if revision in self.commits else None)


@dataclass
class Fault:
    """What happens to requests whose "METHOD /path" the pattern finds; for `times` of them."""

    pattern: str
    what: int | str | Callable[[], None]
    times: int


class MiniHub(ThreadingHTTPServer):
    """The server; a context manager that runs it."""

    daemon_threads = True

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{self.server_address[1]}"
        self.repos: dict[str, Repo] = {}
        self.blobs: dict[str, bytes] = {}
        self.log: list[str] = []
        self.faults: list[Fault] = []

    def __enter__(self) -> MiniHub:
        threading.Thread(target=self.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True).start()
        return self

    def __exit__(self, *_: object) -> None:
        self.shutdown()
        self.server_close()

    def fault(self, pattern: str, what: int | str | Callable[[], None], times: int = 10**6) -> None:
        """Make requests fail.

        Args:
            pattern: searched for in "METHOD /path".
            what: a status; "drop" (close the connection), "truncate" (announce all, send half), "garble" (send as many
                other bytes); or something to call before the answer.
            times: how often.
        """
        self.faults.append(Fault(pattern, what, times))

    def files(self, repo: str, revision: str = "main") -> dict[str, bytes]:
        """The content of a repository."""
        found = self.repos[repo]
        return {path: self.blobs[sha] for path, sha in found.commits[found.find(revision)].items()}

    def add(self, repo: str, files: dict[str, bytes], private: bool = False) -> str:
        """Commit files as somebody might by other means than ours, in place of all that was there."""
        for data in files.values():
            self.blobs[hashlib.sha256(data).hexdigest()] = data
        found = self.repos.setdefault(repo, Repo(private))
        return found.commit({path: hashlib.sha256(data).hexdigest() for path, data in files.items()})

    def handle_error(self, *_: object) -> None:
        """A client that went away is no error here."""


class Handler(BaseHTTPRequestHandler):
    """One request after the other."""

    protocol_version = "HTTP/1.1"
    server: MiniHub

    def log_message(self, *_: Any) -> None:
        pass

    # -- what every request needs

    def _send(self, status: int, body: Any = b"", **headers: str) -> None:
        data = body if isinstance(body, bytes) else json.dumps(body).encode()
        sent = data
        if self.way == "garble":
            sent = bytes(255 - byte for byte in data)
        elif self.way == "truncate":
            sent, self.close_connection = data[: len(data) // 2], True
        self.send_response(status)
        for key, value in ({"Content-Length": str(len(data))} | headers).items():
            self.send_header(key.replace("_", "-"), value)
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(sent)

    def _refuse(self, status: int, code: str = "", text: str = "") -> None:
        headers = {"X_Error_Code": code} if code else {}
        self._send(status, {"error": text}, X_Error_Message=text, **headers)

    def _body(self) -> bytes:
        if self.headers.get("Transfer-Encoding", "").lower() != "chunked":
            return self.rfile.read(int(self.headers.get("Content-Length") or 0))
        data = b""
        while size := int(self.rfile.readline().split(b";")[0], 16):
            data += self.rfile.read(size)
            self.rfile.readline()
        self.rfile.readline()
        return data

    def _answer(self) -> None:
        url = urlsplit(self.path)
        path, self.query = unquote(url.path), parse_qs(url.query)
        request = f"{self.command} {path}"
        self.server.log.append(request)
        self.way: Any = None
        for fault in self.server.faults:
            if fault.times and re.search(fault.pattern, request):
                fault.times -= 1
                self.way = fault.what
                break
        if callable(self.way):
            self.way()
        if self.way == "drop":
            self.close_connection = True
            return None
        body = self._body()
        if isinstance(self.way, int):
            return self._refuse(self.way, text="injected")
        given = self.headers.get("Authorization")
        self.known = given == f"Bearer {TOKEN}"
        if given and not self.known:
            return self._refuse(401, text="Invalid credentials in Authorization header")
        if self.command == "POST" and not self.known:
            return self._refuse(401, text="Invalid username or password.")
        method = "GET" if self.command == "HEAD" else self.command
        for verb, pattern, function in ROUTES:
            if verb == method and (found := re.fullmatch(pattern, path)):
                return function(self, body, **found.groupdict())
        return self._refuse(404, text=f"no route for {request}")

    do_GET = do_HEAD = do_POST = do_PUT = _answer  # noqa: N815 (the names that http.server calls)

    def _repo(self, name: str) -> Repo | None:
        found = self.server.repos.get(name)
        if found is None or (found.private and not self.known):
            if self.known:
                self._refuse(404, "RepoNotFound", "Repository not found")
            else:  # the real one does not tell strangers what exists
                self._refuse(401, text="Invalid username or password.")
            return None
        return found

    # -- the API

    def create(self, body: bytes) -> None:
        wanted = json.loads(body)
        name = f"{wanted['organization']}/{wanted['name']}"
        if wanted["organization"] == "others":
            return self._refuse(403, text="You don't have the rights to create a model under the namespace")
        if name in self.server.repos:
            return self._send(409, {"url": f"{self.server.url}/{name}", "error": "exists"})
        private = bool(wanted.get("private")) or wanted.get("visibility") == "private"
        self.server.repos[name] = Repo(private)
        self.server.repos[name].commit({})
        return self._send(200, {"url": f"{self.server.url}/{name}", "name": name, "id": name})

    def validate_yaml(self, body: bytes) -> None:
        self._send(200, {"errors": [], "warnings": []})

    def preupload(self, body: bytes, repo: str, revision: str) -> None:
        if (found := self._repo(repo)) is None:
            return
        head = found.commits[found.refs[revision]]
        answers = []
        for file in json.loads(body)["files"]:
            path = file["path"]
            large = path.endswith(LARGE)
            oid = None
            if path in head:
                oid = head[path] if large else _git_hash(self.server.blobs[head[path]])
            answers.append(
                {"path": path, "uploadMode": "lfs" if large else "regular", "shouldIgnore": False, "oid": oid}
            )
        self._send(200, {"files": answers})

    def lfs_batch(self, body: bytes, repo: str) -> None:
        if self._repo(repo) is None:
            return
        objects = [{"oid": wanted["oid"], "size": wanted["size"]} for wanted in json.loads(body)["objects"]]
        for one in objects:
            if one["oid"] not in self.server.blobs:
                one["actions"] = {"upload": {"href": f"{self.server.url}/_lfs/{one['oid']}", "header": {}}}
        self._send(200, {"transfer": "basic", "objects": objects})

    def lfs_put(self, body: bytes, oid: str) -> None:
        if hashlib.sha256(body).hexdigest() != oid:
            return self._refuse(400, text="sha256 mismatch")
        self.server.blobs[oid] = body
        return self._send(200)

    def commit(self, body: bytes, repo: str, revision: str) -> None:
        if (found := self._repo(repo)) is None:
            return None
        files = dict(found.commits[found.refs[revision]])
        for line in filter(None, body.split(b"\n")):
            operation = json.loads(line)
            key, value = operation["key"], operation["value"]
            if key == "header" and value.get("parentCommit", found.refs[revision]) != found.refs[revision]:
                return self._refuse(412, text="A commit has happened since. Please refresh and try again.")
            if key == "file":
                data = base64.b64decode(value["content"])
                files[value["path"]] = hashlib.sha256(data).hexdigest()
                self.server.blobs[files[value["path"]]] = data
            elif key == "lfsFile":
                if value["oid"] not in self.server.blobs:
                    return self._refuse(400, text=f"LFS object {value['oid']} was not uploaded")
                files[value["path"]] = value["oid"]
            elif key == "deletedFile":
                del files[value["path"]]
        oid = found.commit(files, revision)
        return self._send(200, {"commitOid": oid, "commitUrl": f"{self.server.url}/{repo}/commit/{oid}"})

    def info(self, body: bytes, repo: str, revision: str = "main") -> None:
        if (found := self._repo(repo)) is None:
            return None
        if (oid := found.find(revision)) is None:
            return self._refuse(404, "RevisionNotFound", f"Invalid rev id: {revision}")
        siblings = []
        for path, sha in sorted(found.commits[oid].items()):
            entry: dict[str, Any] = {"rfilename": path}
            if "blobs" in self.query:
                data = self.server.blobs[sha]
                entry |= {"size": len(data), "blobId": _git_hash(data)}
                if path.endswith(LARGE):
                    entry["lfs"] = {"sha256": sha, "size": len(data), "pointerSize": 130}
            siblings.append(entry)
        return self._send(
            200, {"_id": repo, "id": repo, "modelId": repo, "sha": oid, "private": found.private, "siblings": siblings}
        )

    def resolve(self, body: bytes, repo: str, revision: str, path: str) -> None:
        if (found := self._repo(repo)) is None:
            return None
        if (oid := found.find(revision)) is None:
            return self._refuse(404, "RevisionNotFound", f"Invalid rev id: {revision}")
        if (sha := found.commits[oid].get(path)) is None:
            return self._refuse(404, "EntryNotFound", "Entry not found")
        data = self.server.blobs[sha]
        if not path.endswith(LARGE):
            return self._content(data, ETag=f'"{_git_hash(data)}"', X_Repo_Commit=oid)
        # Large files come from elsewhere, by a signed address that needs no token.
        store = f"http://localhost:{self.server.server_address[1]}/_store/{quote(repo)}/{quote(path)}?oid={sha}"
        return self._send(
            302, Location=store, X_Linked_Etag=f'"{sha}"', X_Linked_Size=str(len(data)), X_Repo_Commit=oid
        )

    def store(self, body: bytes, path: str) -> None:
        if "Authorization" in self.headers:
            return self._refuse(400, text="a token was sent to another host")
        return self._content(self.server.blobs[self.query["oid"][0]])

    def _content(self, data: bytes, **headers: str) -> None:
        wanted = re.fullmatch(r"bytes=(\d+)-", self.headers.get("Range") or "")
        if self.command == "GET" and wanted:
            start = int(wanted[1])
            span = f"bytes {start}-{len(data) - 1}/{len(data)}"
            return self._send(206, data[start:], Content_Range=span, **headers)
        return self._send(200, data, **headers)


def _git_hash(data: bytes) -> str:
    return hashlib.sha1(b"blob %d\0" % len(data) + data).hexdigest()


ROUTES: list[tuple[str, str, Callable[..., None]]] = [
    ("POST", r"/api/repos/create", Handler.create),
    ("POST", r"/api/validate-yaml", Handler.validate_yaml),
    ("POST", rf"/api/models/{_ID}/preupload/(?P<revision>.+)", Handler.preupload),
    ("POST", rf"/api/models/{_ID}/commit/(?P<revision>.+)", Handler.commit),
    ("POST", rf"/{_ID}\.git/info/lfs/objects/batch", Handler.lfs_batch),
    ("PUT", r"/_lfs/(?P<oid>[0-9a-f]{64})", Handler.lfs_put),
    ("GET", rf"/api/models/{_ID}/revision/(?P<revision>.+)", Handler.info),
    ("GET", rf"/api/models/{_ID}", Handler.info),
    ("GET", rf"/{_ID}/resolve/(?P<revision>[^/]+)/(?P<path>.+)", Handler.resolve),
    ("GET", r"/_store/(?P<path>.+)", Handler.store),
]
