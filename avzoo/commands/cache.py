"""`avzoo cache`: the models of the Hub that are on this machine, how large they are, and how to be rid of them."""

from __future__ import annotations

import argparse
from collections.abc import Iterator
from typing import TYPE_CHECKING

from avzoo import registry
from avzoo.errors import AvzooError, did_you_mean

if TYPE_CHECKING:
    from huggingface_hub import CachedRepoInfo, CachedRevisionInfo


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the command's arguments."""
    parser.add_argument(
        "--remove",
        metavar="NAME",
        help="what to delete: a name of `avzoo list`, owner/repo, or hf:owner/repo@commit; left out, all is listed",
    )


def run(options: argparse.Namespace) -> None:
    """List or remove."""
    from huggingface_hub import constants, scan_cache_dir
    from huggingface_hub.errors import CacheNotFound

    try:
        cache = scan_cache_dir()
        found = list(_bundles(cache.repos))
    except CacheNotFound:
        found = []
    if options.remove:
        repo, commit = _meant(options.remove)
        hashes = [r.commit_hash for owner, r in found if owner.repo_id == repo and r.commit_hash.startswith(commit)]
        if not hashes:
            near = did_you_mean(repo, {owner.repo_id for owner, _ in found})
            raise AvzooError(f"{options.remove} is not in {constants.HF_HUB_CACHE}{near} (`avzoo cache` lists what is)")
        strategy = cache.delete_revisions(*hashes)
        strategy.execute()
        print(f"{repo}: {len(hashes)} revision(s) removed, {strategy.expected_freed_size / 1e6:.1f} MB freed")
        return
    names = {(e.hub.get("repo"), e.hub.get("revision")): e.name for e in registry.entries().values() if e.hub}
    for owner, revision in found:
        name = names.get((owner.repo_id, revision.commit_hash), "")
        print(f"{revision.size_on_disk / 1e6:>9.1f} MB  hf:{owner.repo_id}@{revision.commit_hash}  {name}".rstrip())
    print(f"{len(found)} model(s), {sum(r.size_on_disk for _, r in found) / 1e6:.1f} MB in {constants.HF_HUB_CACHE}")


def _bundles(repos: frozenset[CachedRepoInfo]) -> Iterator[tuple[CachedRepoInfo, CachedRevisionInfo]]:
    """The cached revisions that are avzoo's, among those of every other library."""
    listed = {entry.hub.get("repo") for entry in registry.entries().values()}
    for repo in sorted(repos, key=lambda repo: repo.repo_id):
        for revision in sorted(repo.revisions, key=lambda revision: revision.last_modified):
            names = {file.file_name for file in revision.files}
            # Judged by names alone, because a damaged copy has to be found too.
            if repo.repo_id in listed or {"config.json", "model.safetensors", "recipe.yaml"} <= names:
                yield repo, revision


def _meant(given: str) -> tuple[str, str]:
    """Repository and commit (or its beginning, or nothing)."""
    if "/" in given:
        repo, _, commit = given.removeprefix("hf:").partition("@")
        return repo, commit
    hub = registry.find(given).hub
    if not hub:
        raise AvzooError(f"{given} is not from the Hub: there is nothing of it in the cache")
    return hub["repo"], ""
