"""A repository on Hugging Face's hub, or on a server that speaks its API."""

from __future__ import annotations

import re
import shutil
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

from noria.errors import Denied, Invalid, NotFound, Unavailable
from noria.settings import RegistrySettings, environment, export

if TYPE_CHECKING:
    from huggingface_hub import HfApi

TOKEN = "HF_TOKEN"
_FORM = re.compile(r"hf://([A-Za-z0-9][\w.-]*/[A-Za-z0-9][\w.-]*)(?:@([\w./-]+))?")


class HubPlace:
    """A model repository at `hf://OWNER/NAME[@REVISION]`. The token is the variable HF_TOKEN, and nothing else."""

    def __init__(self, address: str, settings: RegistrySettings) -> None:
        found = _FORM.fullmatch(address)
        if found is None:
            raise Invalid(f"'{address}' is no repository", "such as hf://OWNER/NAME or hf://OWNER/NAME@REVISION")
        self._repository, self._revision = found[1], found[2]
        self._endpoint, self._private = settings.hub.rstrip("/"), settings.private
        self._token = environment(TOKEN)
        self._api = self._opened()

    @property
    def address(self) -> str:
        """The repository, with the commit once that is known."""
        revision = f"@{self._revision}" if self._revision else ""
        return f"hf://{self._repository}{revision}"

    def files(self) -> dict[str, str | None]:
        """The repository's files; those in large file storage with their SHA-256. Fixes the commit for `fetch`."""
        with self._told():
            info = self._api.model_info(self._repository, revision=self._revision, files_metadata=True)
        self._revision = info.sha
        return {each.rfilename: each.lfs.sha256 if each.lfs else None for each in info.siblings or ()}

    def fetch(self, names: Iterable[str], into: Path) -> None:
        """Download these files of the commit that `files` has found."""
        for name in names:
            with self._told():
                self._api.hf_hub_download(self._repository, name, revision=self._revision, local_dir=into)
        # The library's own notes of what it has downloaded.
        shutil.rmtree(into / ".cache", ignore_errors=True)

    def send(self, folder: Path, message: str) -> str:
        """Commit all files at once; makes the repository where there is none. Raises Denied without a token."""
        from huggingface_hub import CommitOperationAdd

        if not self._token:
            raise Denied(f"a push to '{self._endpoint}' needs a token, and {TOKEN} is not set", f"export {TOKEN}=…")
        files = [path for path in sorted(folder.rglob("*")) if path.is_file()]
        adding = [CommitOperationAdd(path.relative_to(folder).as_posix(), path) for path in files]
        with self._told():
            self._api.create_repo(self._repository, private=self._private, exist_ok=True)
            done = self._api.create_commit(
                self._repository, adding, commit_message=message, revision=self._revision or "main"
            )
        return f"hf://{self._repository}@{done.oid}"

    def _opened(self) -> HfApi:
        # Read at import. Plain HTTP is one protocol for all servers; xet speaks to another one beside the hub.
        export(HF_HUB_DISABLE_TELEMETRY="1", HF_HUB_DISABLE_XET="1", HF_HUB_DISABLE_PROGRESS_BARS="1")
        try:
            from huggingface_hub import HfApi
        except ModuleNotFoundError as error:
            raise Unavailable(f"'{error.name}' is not installed", "pip install 'noria[hub]'") from error
        # False: a token that somebody logged in with is not taken.
        return HfApi(endpoint=self._endpoint, token=self._token or False, library_name="noria")

    @contextmanager
    def _told(self) -> Iterator[None]:
        """The hub's errors in one line, as ours."""
        from httpx2 import HTTPError
        from huggingface_hub import errors

        try:
            yield
        except errors.LocalEntryNotFoundError as error:
            raise Unavailable(f"'{self._endpoint}' cannot be reached", "check [registry] hub") from error
        except (errors.RepositoryNotFoundError, errors.RevisionNotFoundError, errors.EntryNotFoundError) as error:
            fact = f"'{self.address}' is not at '{self._endpoint}', or is private"
            raise NotFound(fact, f"check the name; a private repository needs {TOKEN}") from error
        except errors.OfflineModeIsEnabled as error:
            raise Unavailable("HF_HUB_OFFLINE is set, so the hub is not asked", "unset HF_HUB_OFFLINE") from error
        except errors.HfHubHTTPError as error:
            status = error.response.status_code
            if status in (401, 403):
                fact = f"'{self._endpoint}' does not let this token write or read '{self._repository}'"
                raise Denied(fact, f"check {TOKEN} and its rights") from error
            raise Unavailable(f"'{self._endpoint}' answered {status} for '{self._repository}'", "try again") from error
        except (HTTPError, OSError, RuntimeError, ValueError) as error:
            # The last two are how the library tells of an upload that broke off and of an answer that it cannot read.
            words = str(error.__cause__ or error).partition("\n")[0]
            raise Unavailable(f"'{self._endpoint}' did not do it: {words}", "check [registry] hub") from error
