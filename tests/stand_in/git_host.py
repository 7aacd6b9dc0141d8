"""A GitLab over real bare git repositories, which can be cloned: projects, trees, commits, LFS.

It speaks the part of GitLab's REST API that publishing uses, and Git LFS's batch API. Commits are
made by git itself, so `git clone` shows what was published.
"""

from __future__ import annotations

import base64
import hashlib
import json
import os
import re
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any
from urllib.parse import unquote
from urllib.request import Request, urlopen

from stac_gitlab.testing import Answer, LoopbackServer, RecordedRequest
from stac_gitlab.testing.exchange import response_of

TOKEN = "glpat-publisher-0123456789"
_LFS_JSON = "application/vnd.git-lfs+json"
_PROJECT = r"/api/v4/projects/([^/]+)"
_ENVIRONMENT = {
    **os.environ,
    "GIT_AUTHOR_NAME": "GitLab",
    "GIT_AUTHOR_EMAIL": "gitlab@example.org",
    "GIT_COMMITTER_NAME": "GitLab",
    "GIT_COMMITTER_EMAIL": "gitlab@example.org",
    "GIT_CONFIG_GLOBAL": os.devnull,
    "GIT_CONFIG_NOSYSTEM": "1",
    "GIT_LITERAL_PATHSPECS": "1",
}


def git(*arguments: str | Path, cwd: Path, data: bytes | None = None) -> bytes:
    """Run git, and return what it prints."""
    done = subprocess.run(
        ["git", *map(str, arguments)],
        cwd=cwd,
        input=data,
        capture_output=True,
        env=_ENVIRONMENT,
        check=False,
        timeout=60,
    )
    if done.returncode:
        raise ValueError(done.stderr.decode("utf-8", "replace"))
    return done.stdout


class GitHost(LoopbackServer):
    """A GitLab with repositories in a folder.

    Args:
        folder: Where the repositories are.
        token: The token that may do everything.

    Attributes:
        projects: What GitLab says of each project, by path.
        objects: The objects of Git LFS, by their hashes.
        groups: The paths of groups in which projects can be created.
        lfs_url: Where uploads go; by default to this server.
        lfs_server: Another Git LFS server that answers batch requests in place of this one.
        refusals: Responses for commits, taken one at a time before any is made.
        before_commit: Called before each commit.
    """

    def __init__(self, folder: Path, token: str = TOKEN) -> None:
        super().__init__()
        self._folder = folder
        self._token = token
        self.projects: dict[str, dict[str, Any]] = {}
        self.objects: dict[str, bytes] = {}
        self.groups = {"alpine": 7}
        self.lfs_url: str | None = None
        self.lfs_server: str | None = None
        self.refusals: list[Answer] = []
        self.before_commit: Callable[[], None] = lambda: None
        self._api: list[tuple[str, str, Callable[..., Answer]]] = [
            ("POST", r"/api/v4/projects", self._create),
            ("GET", r"/api/v4/namespaces/([^/]+)", self._namespace),
            ("GET", _PROJECT, self._describe),
            ("PUT", _PROJECT, self._change),
            ("GET", rf"{_PROJECT}/repository/branches/([^/]+)", self._branch),
            ("GET", rf"{_PROJECT}/repository/tree", self._tree),
            ("HEAD", rf"{_PROJECT}/repository/files/([^/]+)", self._file_head),
            ("GET", rf"{_PROJECT}/repository/files/([^/]+)/raw", self._file),
            ("POST", rf"{_PROJECT}/repository/commits", self._commit),
        ]

    def add(self, path: str, *, topics: tuple[str, ...] = ()) -> Path:
        """Add a project without files, and return its repository."""
        repository = self.repository(path)
        repository.mkdir(parents=True)
        git("init", "-q", "--bare", "-b", "main", ".", cwd=repository)
        self.projects[path] = {
            "id": len(self.projects) + 1,
            "path_with_namespace": path,
            "default_branch": "main",
            "topics": list(topics),
        }
        return repository

    def repository(self, path: str) -> Path:
        """Return the bare repository of a project."""
        return self._folder / f"{path}.git"

    def write(self, path: str, files: dict[str, bytes]) -> str:
        """Commit files as somebody else would, and return the commit."""
        return self._make(path, "main", "Somebody else", [("M", n, c) for n, c in files.items()])

    def files(self, path: str) -> dict[str, bytes]:
        """Return the files of the main branch."""
        repository = self.repository(path)
        names = git("ls-tree", "-r", "-z", "--name-only", "main", cwd=repository).split(b"\0")
        return {
            name.decode(): git("cat-file", "blob", f"main:{name.decode()}", cwd=repository)
            for name in names
            if name
        }

    def answer(self, request: RecordedRequest) -> Answer:
        lfs = re.fullmatch(r"/(.+)\.git/info/lfs/objects/batch", request.path)
        if lfs:
            return self._batch(request)
        if request.path.startswith("/lfs/"):
            return self._object(request)
        for method, pattern, serve in self._api:
            match = re.fullmatch(pattern, request.raw_path)
            if match and request.method == method:
                named = request.headers
                token = named.get("PRIVATE-TOKEN") or named.get("JOB-TOKEN")
                if token != self._token:
                    return response_of({"message": "401 Unauthorized"}, 401)
                parts = [unquote(each) for each in match.groups()]
                if parts and "projects" in pattern and parts[0] not in self.projects:
                    return response_of({"message": "404 Project Not Found"}, 404)
                return serve(request, *parts)
        return response_of({"error": "404 Not Found"}, 404)

    # -- projects ---------------------------------------------------------------------------

    def _namespace(self, _request: RecordedRequest, group: str) -> Answer:
        if group not in self.groups:
            return response_of({"message": "404 Namespace Not Found"}, 404)
        return response_of({"id": self.groups[group], "full_path": group})

    def _create(self, request: RecordedRequest) -> Answer:
        wanted = request.json()
        group = next(
            name for name, number in self.groups.items() if number == wanted["namespace_id"]
        )
        path = f"{group}/{wanted['path']}"
        self.add(path)
        return response_of({**self.projects[path], "empty_repo": True}, 201)

    def _describe(self, _request: RecordedRequest, path: str) -> Answer:
        empty = self._head(path, "main") is None
        return response_of({**self.projects[path], "empty_repo": empty})

    def _change(self, request: RecordedRequest, path: str) -> Answer:
        self.projects[path].update(request.json())
        return self._describe(request, path)

    # -- files ------------------------------------------------------------------------------

    def _head(self, path: str, branch: str) -> str | None:
        found = git(
            "for-each-ref",
            "--format=%(objectname)",
            f"refs/heads/{branch}",
            cwd=self.repository(path),
        )
        return found.decode().strip() or None

    def _branch(self, _request: RecordedRequest, path: str, branch: str) -> Answer:
        head = self._head(path, branch)
        if head is None:
            return response_of({"message": "404 Branch Not Found"}, 404)
        return response_of({"name": branch, "commit": {"id": head}})

    def _tree(self, request: RecordedRequest, path: str) -> Answer:
        listed = git("ls-tree", "-r", "-z", request.query["ref"], cwd=self.repository(path))
        entries = []
        for line in filter(None, listed.split(b"\0")):
            head, _, name = line.decode().partition("\t")
            mode, kind, blob = head.split()
            entries.append({"id": blob, "type": kind, "mode": mode, "path": name})
        size, page = int(request.query["per_page"]), int(request.query.get("page", 1))
        following = str(page + 1) if size * page < len(entries) else ""
        return response_of(
            entries[size * (page - 1) : size * page], 200, {"x-next-page": following}
        )

    def _file_head(self, request: RecordedRequest, path: str, file: str) -> Answer:
        commit = self._last_commit(path, file, request.query["ref"])
        if commit is None:
            return response_of({"message": "404 File Not Found"}, 404)
        return Answer(200, (("x-gitlab-last-commit-id", commit),))

    def _file(self, request: RecordedRequest, path: str, file: str) -> Answer:
        ref = f"{request.query['ref']}:{file}"
        return response_of(git("cat-file", "blob", ref, cwd=self.repository(path)))

    def _last_commit(self, path: str, file: str, ref: str) -> str | None:
        found = git("log", "-1", "--format=%H", ref, "--", file, cwd=self.repository(path))
        return found.decode().strip() or None

    def _commit(self, request: RecordedRequest, path: str) -> Answer:
        self.before_commit()
        if self.refusals:
            return self.refusals.pop(0)
        wanted = request.json()
        branch = wanted["branch"]
        head = self._head(path, branch)
        names = set()
        if head is not None:
            listed = git("ls-tree", "-r", "-z", "--name-only", head, cwd=self.repository(path))
            names = set(listed.decode().split("\0"))
        changes = []
        for action in wanted["actions"]:
            file, kind = action["file_path"], action["action"]
            if kind == "create" and file in names:
                return response_of({"message": "A file with this name already exists"}, 400)
            if kind != "create" and file not in names:
                return response_of({"message": "A file with this name doesn't exist"}, 400)
            last = action.get("last_commit_id")
            if last and last != self._last_commit(path, file, str(head)):
                said = f"The file has changed since you started editing it: {file}"
                return response_of({"message": said}, 400)
            content = base64.b64decode(action.get("content", ""))
            changes.append(("D" if kind == "delete" else "M", file, content))
        made = self._make(path, branch, wanted["commit_message"], changes)
        return response_of({"id": made, "title": wanted["commit_message"]}, 201)

    def _make(
        self, path: str, branch: str, message: str, changes: list[tuple[str, str, bytes]]
    ) -> str:
        head = self._head(path, branch)
        lines = [
            f"commit refs/heads/{branch}".encode(),
            b"committer GitLab <gitlab@example.org> now",
            b"data %d\n%s" % (len(message.encode()), message.encode()),
        ]
        lines += [f"from {head}".encode()] if head else []
        for kind, file, content in changes:
            name = json.dumps(file, ensure_ascii=False).encode()
            lines.append(b"D %s" % name if kind == "D" else b"M 100644 inline %s" % name)
            lines += [b"data %d\n%s" % (len(content), content)] if kind == "M" else []
        stream = b"\n".join(lines) + b"\n"
        git("fast-import", "--quiet", "--date-format=now", cwd=self.repository(path), data=stream)
        made = self._head(path, branch)
        assert made is not None
        return made

    # -- Git LFS ----------------------------------------------------------------------------

    def _batch(self, request: RecordedRequest) -> Answer:
        scheme, _, login = request.headers.get("Authorization", "").partition(" ")
        user, _, password = base64.b64decode(login).decode().partition(":")
        if scheme != "Basic" or not user or password != self._token:
            return response_of({"message": "Access denied"}, 401)
        if self.lfs_server is not None:
            headers = {"Accept": _LFS_JSON, "Content-Type": _LFS_JSON}
            there = Request(f"{self.lfs_server}{request.path}", request.body, headers)
            with urlopen(there) as response:
                return response_of(response.read(), 200, {"content-type": _LFS_JSON})
        wanted = request.json()
        store = f"{self.lfs_url or self.url}/lfs"
        answered = []
        for each in wanted["objects"]:
            oid = each["oid"]
            described: dict[str, Any] = {"oid": oid, "size": each["size"]}
            upload = {"href": f"{store}/{oid}", "header": {"Authorization": f"Basic {oid[:20]}"}}
            if wanted["operation"] == "download":
                described["actions"] = {"download": {"href": f"{store}/{oid}"}}
            elif oid not in self.objects:
                verify = {"href": f"{store}/verify"}
                described["actions"] = {"upload": upload, "verify": verify}
            answered.append(described)
        made = {"transfer": "basic", "objects": answered}
        return response_of(made, 200, {"content-type": _LFS_JSON})

    def _object(self, request: RecordedRequest) -> Answer:
        oid = request.path.rpartition("/")[2]
        if oid == "verify":
            wanted = request.json()
            found = self.objects.get(wanted["oid"])
            return Answer(200 if found is not None and len(found) == wanted["size"] else 404)
        if request.method == "PUT":
            if hashlib.sha256(request.body).hexdigest() != oid:
                return response_of("the content is another", 422)
            self.objects[oid] = request.body
            return Answer(200)
        return response_of(self.objects[oid])
