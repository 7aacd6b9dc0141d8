"""GitLab with project documents, rate limit headers, and job tokens for some projects only."""

from __future__ import annotations

import re
import time
from collections.abc import Sequence
from typing import Any
from urllib.parse import unquote

from stac_gitlab.testing import Answer, GitLabServer, RecordedRequest
from stac_gitlab.testing.exchange import response_of
from stac_gitlab.testing.gitlab import API_PATH


class RecordedGitLab(GitLabServer):
    """A `GitLabServer`, and what few tests need of the real one.

    Args:
        rate_limit: Requests per minute, for the `RateLimit-*` headers. The server only counts.
        job_token_projects: Paths of the only projects that a `JOB-TOKEN` opens; `None` means all.
        options: As for `GitLabServer`.
    """

    def __init__(
        self,
        *projects: Any,
        rate_limit: int | None = None,
        job_token_projects: Sequence[str] | None = None,
        **options: Any,
    ) -> None:
        super().__init__(*projects, **options)
        self.rate_limit = rate_limit
        self.job_token_projects = job_token_projects
        self._counted = 0
        self.api._routes.append((rf"{API_PATH}projects/([^/]+)", self._project))

    def answer(self, request: RecordedRequest) -> Answer:
        if not request.raw_path.startswith(API_PATH):
            return super().answer(request)
        if self._is_closed_to_the_job(request):
            answer = response_of({"message": "404 Project Not Found"}, 404)
        else:
            answer = super().answer(request)
        return answer.with_headers(self._limits())

    def _project(self, request: RecordedRequest, name: str) -> Answer:
        found = self.api._visible(self.api._user(request), name)
        document = {
            "id": found.number,
            "name": found.project.name,
            "name_with_namespace": found.full_name,
            "path_with_namespace": found.project.path,
            "default_branch": found.project.ref,
            "web_url": f"{self.url}/{found.project.path}",
        }
        return response_of(document)

    def _is_closed_to_the_job(self, request: RecordedRequest) -> bool:
        allowed = self.job_token_projects
        if allowed is None or "JOB-TOKEN" not in request.headers:
            return False
        project = re.match(rf"{API_PATH}projects/([^/]+)", request.raw_path)
        return project is None or unquote(project[1]) not in allowed

    def _limits(self) -> dict[str, str | None]:
        if self.rate_limit is None:
            return {}
        self._counted += 1
        return {
            "RateLimit-Limit": str(self.rate_limit),
            "RateLimit-Name": "throttle_authenticated_api",
            "RateLimit-Observed": str(self._counted),
            "RateLimit-Remaining": str(max(0, self.rate_limit - self._counted)),
            "RateLimit-Reset": str(int(time.time()) // 60 * 60 + 60),
        }
