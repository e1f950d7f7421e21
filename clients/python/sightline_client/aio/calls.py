"""A method for each call of the API, written by generate.py from the OpenAPI document of the server. Do not edit."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Literal

from sightline_client.aio.transport import AsyncTransport
from sightline_client.call import UNSET, Call, Unset, quote
from sightline_client.models import (
    Ask,
    BatchResult,
    Changes,
    Classification,
    Collection,
    Collections,
    DeletedCollections,
    DeletedHeads,
    DeletedImages,
    DeletedSavedSearches,
    DeletedTexts,
    DeletedVideos,
    Duplicates,
    Enrichments,
    Explanation,
    FileChange,
    Filter,
    Head,
    Heads,
    Image,
    ImagePage,
    ItemPage,
    ItemStatus,
    Job,
    Jobs,
    JobState,
    Known,
    Labels,
    Liveness,
    Matches,
    MatchPage,
    Models,
    NewLabel,
    NewText,
    NewWebhook,
    QueryPart,
    Readiness,
    SavedSearch,
    SavedSearches,
    SearchParams,
    SearchQuery,
    SearchResult,
    Session,
    Sources,
    Stats,
    StoredTexts,
    Text,
    TextPage,
    Upload,
    Vector,
    Video,
    VideoPage,
    Watch,
    WatchedFilePage,
    Watches,
    WatchReport,
    Weights,
)
from sightline_client.pictures import Picture


class AsyncCalls(AsyncTransport):
    """The calls of a server, one method each."""

    async def get_stats(self, *, collection: str | None = None) -> Stats:
        """Get counts, the index and how far it is behind the log, the model and its space. `open_indexes`, `spaces`
        and `cluster` concern all collections, so that a key that is bound to some does not get them.
        """
        return await self._run(Call("GET", "/v1/stats", Stats, query={"collection": collection}))

    async def list_models(self) -> Models:
        """List the models that are known, and say which one is loaded; `data` lists that one as OpenAI does."""
        return await self._run(Call("GET", "/v1/models", Models))

    async def check_liveness(self) -> Liveness:
        """Say that the process answers."""
        return await self._run(Call("GET", "/livez", Liveness))

    async def check_readiness(self) -> Readiness:
        """Say whether searches can be answered. If not, 503 with the reasons. `faults` are failures in the
        background, which the server tries again by itself. Where keys are needed, a caller without one gets
        neither reasons nor faults nor checks, nor does one whose key is bound to collections: they tell of all.
        """
        return await self._run(Call("GET", "/readyz", Readiness))

    async def get_metrics(self) -> bytes:
        """Get the metrics in Prometheus' text format."""
        return await self._run(Call("GET", "/metrics", bytes))

    async def search_images(
        self,
        *,
        q: str,
        k: int | None = None,
        target: Literal["images", "texts"] | None = None,
        filter: Filter | None = None,
        exact: bool | None = None,
        effort: Literal["fast", "normal", "exact"] | None = None,
        mode: Literal["hybrid", "vector", "keyword"] | None = None,
        templates: Sequence[str] | None = None,
        score_threshold: float | None = None,
        calibrate: bool | None = None,
        time_words: bool | None = None,
        today: str | None = None,
        collection: str | None = None,
        after: str | None = None,
        offset: int | None = None,
        order_by: str | None = None,
        group_by: str | None = None,
        group_size: int | None = None,
        collapse: bool | None = None,
        diversity: float | None = None,
        facets: Sequence[str] | None = None,
        facet_size: int | None = None,
    ) -> SearchResult:
        """Search pictures, or texts, by words."""
        return await self._run(
            Call(
                "GET",
                "/v1/search",
                SearchResult,
                query={
                    "q": q,
                    "k": k,
                    "target": target,
                    "filter": filter,
                    "exact": exact,
                    "effort": effort,
                    "mode": mode,
                    "templates": templates,
                    "score_threshold": score_threshold,
                    "calibrate": calibrate,
                    "time_words": time_words,
                    "today": today,
                    "collection": collection,
                    "after": after,
                    "offset": offset,
                    "order_by": order_by,
                    "group_by": group_by,
                    "group_size": group_size,
                    "collapse": collapse,
                    "diversity": diversity,
                    "facets": facets,
                    "facet_size": facet_size,
                },
            )
        )

    async def search_by_parts(
        self,
        *,
        query: Sequence[QueryPart],
        offset: int | None = None,
        order_by: str | None = None,
        group_by: str | None = None,
        group_size: int | None = None,
        collapse: bool | None = None,
        diversity: float | None = None,
        facets: Sequence[str] | None = None,
        facet_size: int | None = None,
        target: Literal["images", "texts"] | None = None,
        k: int | None = None,
        collection: str | None = None,
        filter: Filter | None = None,
        exact: bool | None = None,
        effort: Literal["fast", "normal", "exact"] | None = None,
        mode: Literal["hybrid", "vector", "keyword"] | None = None,
        weights: Weights | None = None,
        params: SearchParams | None = None,
        templates: Literal["auto", "none"] | Sequence[str] | None = None,
        score_threshold: float | None = None,
        calibrate: bool | None = None,
        time_words: bool | None = None,
        today: str | None = None,
        like: Sequence[str] | None = None,
        unlike: Sequence[str] | None = None,
        after: str | None = None,
    ) -> SearchResult:
        """Search by words, pictures, ids and vectors at once. Each part has its weight."""
        return await self._run(
            Call(
                "POST",
                "/v1/search",
                SearchResult,
                query={"after": after},
                body={
                    "query": query,
                    "offset": offset,
                    "order_by": order_by,
                    "group_by": group_by,
                    "group_size": group_size,
                    "collapse": collapse,
                    "diversity": diversity,
                    "facets": facets,
                    "facet_size": facet_size,
                    "target": target,
                    "k": k,
                    "collection": collection,
                    "filter": filter,
                    "exact": exact,
                    "effort": effort,
                    "mode": mode,
                    "weights": weights,
                    "params": params,
                    "templates": templates,
                    "score_threshold": score_threshold,
                    "calibrate": calibrate,
                    "time_words": time_words,
                    "today": today,
                    "like": like,
                    "unlike": unlike,
                },
            )
        )

    async def upload_images(
        self,
        *,
        files: Sequence[Picture],
        collection: str | None = None,
        priority: Literal["high", "normal", "low"] | None = None,
        left_out: Mapping[str, int] | None = None,
        job: str | None = None,
    ) -> Job:
        """Add any number of pictures and archives (zip, tar, tar.gz). A job imports them."""
        return await self._run(
            Call(
                "POST",
                "/v1/images/bulk",
                Job,
                query={"job": job},
                body={"files": files, "collection": collection, "priority": priority, "left_out": left_out},
                files="files",
                is_form=True,
                is_keyed=True,
            )
        )

    async def import_images(
        self,
        *,
        source: str,
        items: Sequence[Mapping[str, Any]] | None = None,
        collection: str | None = None,
        priority: Literal["high", "normal", "low"] | None = None,
        columns: Mapping[str, str] | None = None,
        embeddings_of: str | None = None,
        pictures: str | None = None,
        exclude: Sequence[str] | None = None,
        key_as_id: bool | None = None,
        job: str | None = None,
    ) -> Job:
        """Import pictures by URL, or from a place on the server. A job does it. URLs come as JSON with `items`, or
        one item a line. They are off unless the operator allows them (`SIGHTLINE_FETCH`). A place on the server
        is a `source` below `SIGHTLINE_FOLDERS`, a bucket one of `SIGHTLINE_BUCKETS`. A job leaves out what has
        not changed since the last one.
        """
        return await self._run(
            Call(
                "POST",
                "/v1/images/ingest",
                Job,
                query={"job": job},
                body={
                    "source": source,
                    "items": items,
                    "collection": collection,
                    "priority": priority,
                    "columns": columns,
                    "embeddings_of": embeddings_of,
                    "pictures": pictures,
                    "exclude": exclude,
                    "key_as_id": key_as_id,
                },
                is_keyed=True,
            )
        )

    async def upload_image(
        self,
        *,
        file: Picture,
        id: str | None = None,
        caption: str | None = None,
        tags: Sequence[str] | None = None,
        metadata: Mapping[str, Any] | None = None,
        collection: str | None = None,
        wait: float | None = None,
        replace: bool | None = None,
    ) -> Upload:
        """Add one picture. 202 when it is safely stored, 200 when it is ready, or was stored already. 422 with the
        code of its error, and its id, when it failed within `wait`.
        """
        return await self._run(
            Call(
                "POST",
                "/v1/images",
                Upload,
                body={
                    "file": file,
                    "id": id,
                    "caption": caption,
                    "tags": tags,
                    "metadata": metadata,
                    "collection": collection,
                    "wait": wait,
                    "replace": replace,
                },
                files="file",
                is_form=True,
                is_keyed=True,
            )
        )

    async def list_images(
        self,
        *,
        limit: int | None = None,
        cursor: str | None = None,
        filter: Filter | None = None,
        count: bool | None = None,
        order_by: str | None = None,
        facets: Sequence[str] | None = None,
        facet_size: int | None = None,
        vectors: bool | None = None,
        collection: str | None = None,
        after: str | None = None,
    ) -> ImagePage:
        """List pictures, newest first, or in another order."""
        return await self._run(
            Call(
                "GET",
                "/v1/images",
                ImagePage,
                query={
                    "limit": limit,
                    "cursor": cursor,
                    "filter": filter,
                    "count": count,
                    "order_by": order_by,
                    "facets": facets,
                    "facet_size": facet_size,
                    "vectors": vectors,
                    "collection": collection,
                    "after": after,
                },
            )
        )

    async def upload_video(
        self,
        *,
        file: Picture,
        caption: str | None = None,
        tags: Sequence[str] | None = None,
        metadata: Mapping[str, Any] | None = None,
        collection: str | None = None,
        priority: Literal["high", "normal", "low"] | None = None,
    ) -> Job:
        """Add a video (MP4, MOV, WebM, MKV). A job makes pictures of its frames. `POST /v1/images/bulk` takes
        videos as well, among pictures and archives.
        """
        return await self._run(
            Call(
                "POST",
                "/v1/videos",
                Job,
                body={
                    "file": file,
                    "caption": caption,
                    "tags": tags,
                    "metadata": metadata,
                    "collection": collection,
                    "priority": priority,
                },
                files="file",
                is_form=True,
                is_keyed=True,
            )
        )

    async def list_videos(
        self, *, limit: int | None = None, cursor: str | None = None, collection: str | None = None
    ) -> VideoPage:
        """List videos, newest first."""
        return await self._run(
            Call("GET", "/v1/videos", VideoPage, query={"limit": limit, "cursor": cursor, "collection": collection})
        )

    async def search_by_image(
        self,
        *,
        file: Picture,
        offset: int | None = None,
        order_by: str | None = None,
        group_by: str | None = None,
        group_size: int | None = None,
        collapse: bool | None = None,
        diversity: float | None = None,
        facets: Sequence[str] | None = None,
        facet_size: int | None = None,
        k: int | None = None,
        target: Literal["images", "texts"] | None = None,
        filter: Filter | None = None,
        exact: bool | None = None,
        effort: Literal["fast", "normal", "exact"] | None = None,
        mode: Literal["hybrid", "vector", "keyword"] | None = None,
        score_threshold: float | None = None,
        collection: str | None = None,
        after: str | None = None,
    ) -> SearchResult:
        """Search by a picture. Finds pictures like the one sent, or the texts that fit it."""
        return await self._run(
            Call(
                "POST",
                "/v1/search/image",
                SearchResult,
                query={"after": after},
                body={
                    "file": file,
                    "offset": offset,
                    "order_by": order_by,
                    "group_by": group_by,
                    "group_size": group_size,
                    "collapse": collapse,
                    "diversity": diversity,
                    "facets": facets,
                    "facet_size": facet_size,
                    "k": k,
                    "target": target,
                    "filter": filter,
                    "exact": exact,
                    "effort": effort,
                    "mode": mode,
                    "score_threshold": score_threshold,
                    "collection": collection,
                },
                files="file",
                is_form=True,
            )
        )

    async def classify_image(
        self,
        *,
        labels: Sequence[str],
        file: Picture | None = None,
        template: str | None = None,
        collection: str | None = None,
        image_id: str | None = None,
    ) -> Classification:
        """Say which of at least two labels fits a picture. It is sent along, or stored already (JSON with
        `image_id`).
        """
        return await self._run(
            Call(
                "POST",
                "/v1/classify",
                Classification,
                body={
                    "labels": labels,
                    "file": file,
                    "template": template,
                    "collection": collection,
                    "image_id": image_id,
                },
                files="file",
            )
        )

    async def match_texts(
        self,
        *,
        text: Sequence[str],
        file: Picture | None = None,
        collection: str | None = None,
        image_id: str | None = None,
    ) -> Matches:
        """Say which texts fit a picture, each by itself. It is sent along, or stored already (JSON with
        `image_id`).
        """
        return await self._run(
            Call(
                "POST",
                "/v1/match",
                Matches,
                body={"text": text, "file": file, "collection": collection, "image_id": image_id},
                files="file",
            )
        )

    async def search_batch(
        self, *, searches: Sequence[SearchQuery], collection: str | None = None, after: str | None = None
    ) -> BatchResult:
        """Answer up to 100 searches. The answers come in their order, each like that of a search, or why there is
        none.
        """
        return await self._run(
            Call(
                "POST",
                "/v1/search/batch",
                BatchResult,
                query={"collection": collection, "after": after},
                body={"searches": searches},
            )
        )

    async def get_sources(self) -> Sources:
        """Say what may be imported: URLs, the folders of this machine, and the limits of uploads."""
        return await self._run(Call("GET", "/v1/sources", Sources))

    async def read_camera_data(self, *, again: bool | None = None, collection: str | None = None) -> Job:
        """Read the camera data of pictures that an older version has stored. A job does it, and decodes no vectors
        anew.
        """
        return await self._run(
            Call("POST", "/v1/camera-data", Job, query={"again": again, "collection": collection}, is_repeatable=False)
        )

    async def find_known_images(self, *, sha256: Sequence[str], collection: str | None = None) -> Known:
        """Say which files are pictures of the collection already. A client need not send them."""
        return await self._run(
            Call("POST", "/v1/images/known", Known, body={"sha256": sha256, "collection": collection})
        )

    async def delete_images(
        self,
        *,
        filter: Filter | None = None,
        ids: Sequence[str] | None = None,
        all: bool | None = None,
        collection: str | None = None,
        dry_run: bool | None = None,
    ) -> DeletedImages:
        """Delete the pictures that match a filter. Pictures that are added meanwhile stay."""
        return await self._run(
            Call(
                "POST",
                "/v1/images/delete",
                DeletedImages,
                body={"filter": filter, "ids": ids, "all": all, "collection": collection, "dry_run": dry_run},
                is_repeatable=False,
            )
        )

    async def get_image(self, id: str, *, collection: str | None = None) -> Image:
        """Get one picture."""
        return await self._run(Call("GET", f"/v1/images/{quote(id)}", Image, query={"collection": collection}))

    async def update_image(
        self,
        id: str,
        *,
        caption: str | Unset | None = UNSET,
        tags: Sequence[str] | Unset | None = UNSET,
        metadata: Mapping[str, Any] | Unset | None = UNSET,
        generated_caption: Unset | None = UNSET,
        rejected_tags: Sequence[str] | Unset | None = UNSET,
        collection: str | None = None,
    ) -> Image:
        """Change caption, tags or metadata, reject auto-tags, or delete a generated caption. What is not sent
        stays.
        """
        return await self._run(
            Call(
                "PATCH",
                f"/v1/images/{quote(id)}",
                Image,
                query={"collection": collection},
                body={
                    "caption": caption,
                    "tags": tags,
                    "metadata": metadata,
                    "generated_caption": generated_caption,
                    "rejected_tags": rejected_tags,
                },
                nulls=("caption", "tags", "metadata", "generated_caption", "rejected_tags"),
            )
        )

    async def delete_image(
        self, id: str, *, dry_run: bool | None = None, collection: str | None = None
    ) -> DeletedImages | None:
        """Delete a picture. No search sent after this answer finds it."""
        return await self._run(
            Call(
                "DELETE",
                f"/v1/images/{quote(id)}",
                DeletedImages,
                query={"dry_run": dry_run, "collection": collection},
                is_optional=True,
            )
        )

    async def get_image_vector(self, id: str, *, collection: str | None = None) -> Vector:
        """Get the stored vector of a picture."""
        return await self._run(Call("GET", f"/v1/images/{quote(id)}/vector", Vector, query={"collection": collection}))

    async def get_image_file(self, id: str, *, collection: str | None = None) -> bytes:
        """Get the bytes of a picture as they were sent. Browsers do not show HEIC, TIFF, JPEG XL, JPEG 2000 and RAW
        files; a thumbnail of 2048 pixels is for them. A server with presigned reads redirects to the bucket
        (307).
        """
        return await self._run(Call("GET", f"/v1/images/{quote(id)}/file", bytes, query={"collection": collection}))

    async def get_image_thumbnail(self, id: str, *, size: int | None = None, collection: str | None = None) -> bytes:
        """Get a thumbnail. It is a JPEG of a JPEG, HEIC or RAW file, a WebP of all others, without their metadata."""
        return await self._run(
            Call("GET", f"/v1/images/{quote(id)}/thumbnail", bytes, query={"size": size, "collection": collection})
        )

    async def list_jobs(
        self, *, limit: int | None = None, collection: str | None = None, state: JobState | None = None
    ) -> Jobs:
        """List jobs, newest first."""
        return await self._run(
            Call("GET", "/v1/jobs", Jobs, query={"limit": limit, "collection": collection, "state": state})
        )

    async def get_job(self, id: str) -> Job:
        """Get a job. It says how far it is, how fast, and how long it will take."""
        return await self._run(Call("GET", f"/v1/jobs/{quote(id)}", Job))

    async def list_job_items(
        self,
        id: str,
        *,
        status: ItemStatus | None = None,
        warned: bool | None = None,
        limit: int | None = None,
        cursor: str | None = None,
    ) -> ItemPage:
        """List the items of a job. `status=failed` shows just those that need a look. All of them at once, one a
        line, for `Accept: application/x-ndjson`; `limit` means nothing there.
        """
        return await self._run(
            Call(
                "GET",
                f"/v1/jobs/{quote(id)}/items",
                ItemPage,
                query={"status": status, "warned": warned, "limit": limit, "cursor": cursor},
            )
        )

    async def pause_job(self, id: str) -> Job:
        """Pause a job. Workers finish what they have begun."""
        return await self._run(Call("POST", f"/v1/jobs/{quote(id)}/pause", Job, is_repeatable=False))

    async def resume_job(self, id: str) -> Job:
        """Resume a paused job."""
        return await self._run(Call("POST", f"/v1/jobs/{quote(id)}/resume", Job, is_repeatable=False))

    async def cancel_job(self, id: str) -> Job:
        """Cancel a job. What is ready stays; what still waits fails with `cancelled`, and can be retried."""
        return await self._run(Call("POST", f"/v1/jobs/{quote(id)}/cancel", Job, is_repeatable=False))

    async def retry_job(self, id: str) -> Job:
        """Retry the failed items of a job. Those whose bytes are stored, and those whose bytes never came (URLs,
        files). A warning says how many stay failed because their bytes were refused.
        """
        return await self._run(Call("POST", f"/v1/jobs/{quote(id)}/retry", Job, is_repeatable=False))

    async def get_video(self, id: str, *, collection: str | None = None) -> Video:
        """Get one video."""
        return await self._run(Call("GET", f"/v1/videos/{quote(id)}", Video, query={"collection": collection}))

    async def delete_video(
        self, id: str, *, dry_run: bool | None = None, collection: str | None = None
    ) -> DeletedVideos | None:
        """Delete a video, its file and its frames. No search sent after this answer finds them."""
        return await self._run(
            Call(
                "DELETE",
                f"/v1/videos/{quote(id)}",
                DeletedVideos,
                query={"dry_run": dry_run, "collection": collection},
                is_optional=True,
            )
        )

    async def get_video_file(self, id: str, *, collection: str | None = None) -> bytes:
        """Get the bytes of a video as they were sent, or a range of them, as players ask. A server with presigned
        reads redirects to the bucket (307).
        """
        return await self._run(Call("GET", f"/v1/videos/{quote(id)}/file", bytes, query={"collection": collection}))

    async def create_watch(
        self,
        *,
        source: str,
        collection: str | None = None,
        title: str | None = None,
        exclude: Sequence[str] | None = None,
        deletes: Literal["mirror", "keep"] | None = None,
        poll_seconds: float | None = None,
        allow_mass_delete: bool | None = None,
    ) -> Watch:
        """Watch a folder: its pictures become those of a collection, and stay equal to it. A folder that is watched
        already gets the new options.
        """
        return await self._run(
            Call(
                "POST",
                "/v1/watches",
                Watch,
                body={
                    "source": source,
                    "collection": collection,
                    "title": title,
                    "exclude": exclude,
                    "deletes": deletes,
                    "poll_seconds": poll_seconds,
                    "allow_mass_delete": allow_mass_delete,
                },
                is_repeatable=False,
            )
        )

    async def list_watches(self, *, collection: str | None = None) -> Watches:
        """List watched folders."""
        return await self._run(Call("GET", "/v1/watches", Watches, query={"collection": collection}))

    async def get_watch(self, id: str) -> Watch:
        """Get a watched folder, with its state."""
        return await self._run(Call("GET", f"/v1/watches/{quote(id)}", Watch))

    async def delete_watch(self, id: str) -> None:
        """Watch a folder no more. Its pictures stay."""
        await self._run(Call("DELETE", f"/v1/watches/{quote(id)}", None))

    async def pause_watch(self, id: str) -> Watch:
        """Pause a watched folder: nothing of it is applied until it is resumed."""
        return await self._run(Call("POST", f"/v1/watches/{quote(id)}/pause", Watch, is_repeatable=False))

    async def resume_watch(self, id: str) -> Watch:
        """Resume a watched folder. It begins with a scan."""
        return await self._run(Call("POST", f"/v1/watches/{quote(id)}/resume", Watch, is_repeatable=False))

    async def scan_watch(self, id: str) -> Watch:
        """Scan a folder of the server now."""
        return await self._run(Call("POST", f"/v1/watches/{quote(id)}/scan", Watch, is_repeatable=False))

    async def confirm_watch(self, id: str) -> Watch:
        """Confirm the deletions that are held: the files are gone, and their pictures shall be deleted."""
        return await self._run(Call("POST", f"/v1/watches/{quote(id)}/confirm", Watch, is_repeatable=False))

    async def list_watched_files(
        self, id: str, *, limit: int | None = None, cursor: str | None = None, status: Literal["failed"] | None = None
    ) -> WatchedFilePage:
        """List the files of a watched folder as they were when they were applied."""
        return await self._run(
            Call(
                "GET",
                f"/v1/watches/{quote(id)}/files",
                WatchedFilePage,
                query={"limit": limit, "cursor": cursor, "status": status},
            )
        )

    async def send_files(
        self, id: str, *, files: Sequence[Picture] | None = None, change: Sequence[str] | None = None
    ) -> Changes:
        """Send files of a folder that a client watches, with their changes."""
        return await self._run(
            Call(
                "POST",
                f"/v1/watches/{quote(id)}/files",
                Changes,
                body={"files": files, "change": change},
                files="files",
                is_form=True,
                is_repeatable=False,
            )
        )

    async def apply_changes(
        self, id: str, *, changes: Sequence[FileChange] | None = None, report: WatchReport | None = None
    ) -> Changes:
        """Apply what became of files of a folder that a client watches. The same changes again change nothing."""
        return await self._run(
            Call(
                "POST",
                f"/v1/watches/{quote(id)}/changes",
                Changes,
                body={"changes": changes, "report": report},
                is_repeatable=False,
            )
        )

    async def ask_about_image(
        self,
        id: str,
        *,
        question: str,
        answers: Sequence[str],
        by: Literal["encoder", "captioner"] | None = None,
        collection: str | None = None,
    ) -> Ask:
        """Say which of the answers to a question about a picture is right. `by` says what has answered: the
        captioner, if it is a server, or the encoder.
        """
        return await self._run(
            Call(
                "POST",
                f"/v1/images/{quote(id)}/ask",
                Ask,
                body={"question": question, "answers": answers, "by": by, "collection": collection},
            )
        )

    async def explain_image(
        self,
        id: str,
        *,
        q: str,
        size: int | None = None,
        time_words: bool | None = None,
        today: str | None = None,
        collection: str | None = None,
    ) -> Explanation:
        """Say which part of a picture meets words, and which of the words counted. With `Accept: image/png` the
        answer is the picture with a heat map.
        """
        return await self._run(
            Call(
                "GET",
                f"/v1/images/{quote(id)}/explain",
                Explanation,
                query={"q": q, "size": size, "time_words": time_words, "today": today, "collection": collection},
            )
        )

    async def explain_image_as_png(
        self,
        id: str,
        *,
        q: str,
        size: int | None = None,
        time_words: bool | None = None,
        today: str | None = None,
        collection: str | None = None,
    ) -> bytes:
        """Say which part of a picture meets words, and which of the words counted: a file of the type image/png."""
        return await self._run(
            Call(
                "GET",
                f"/v1/images/{quote(id)}/explain",
                bytes,
                query={"q": q, "size": size, "time_words": time_words, "today": today, "collection": collection},
                accept="image/png",
            )
        )

    async def list_saved_searches(self, *, collection: str | None = None) -> SavedSearches:
        """List saved searches with their counts, newest first."""
        return await self._run(Call("GET", "/v1/saved-searches", SavedSearches, query={"collection": collection}))

    async def save_search(
        self,
        *,
        name: str,
        query: SearchQuery,
        match: Literal["good"] | None = None,
        webhook: NewWebhook | None = None,
        collection: str | None = None,
    ) -> SavedSearch:
        """Save a search. What matches it now is counted; each picture that comes later and matches is news."""
        return await self._run(
            Call(
                "POST",
                "/v1/saved-searches",
                SavedSearch,
                body={"name": name, "query": query, "match": match, "webhook": webhook, "collection": collection},
                is_repeatable=False,
            )
        )

    async def get_saved_search(self, id: str) -> SavedSearch:
        """Get a saved search, with how many pictures it has found and how many of them are new."""
        return await self._run(Call("GET", f"/v1/saved-searches/{quote(id)}", SavedSearch))

    async def update_saved_search(
        self,
        id: str,
        *,
        name: str | Unset | None = UNSET,
        query: SearchQuery | Unset | None = UNSET,
        match: Literal["good"] | Unset | None = UNSET,
        webhook: NewWebhook | Unset | None = UNSET,
        seen: bool | int | Unset | None = UNSET,
    ) -> SavedSearch:
        """Change a saved search, its webhook, or what was seen of it. What is not sent stays."""
        return await self._run(
            Call(
                "PATCH",
                f"/v1/saved-searches/{quote(id)}",
                SavedSearch,
                body={"name": name, "query": query, "match": match, "webhook": webhook, "seen": seen},
                nulls=("name", "query", "match", "webhook", "seen"),
            )
        )

    async def delete_saved_search(self, id: str, *, dry_run: bool | None = None) -> DeletedSavedSearches | None:
        """Delete a saved search, with what it has found and its webhook. No picture is deleted."""
        return await self._run(
            Call(
                "DELETE",
                f"/v1/saved-searches/{quote(id)}",
                DeletedSavedSearches,
                query={"dry_run": dry_run},
                is_optional=True,
            )
        )

    async def list_matches(self, id: str, *, limit: int | None = None, cursor: str | None = None) -> MatchPage:
        """List the pictures that a saved search has found, the newest match first; the last 10,000 are kept."""
        return await self._run(
            Call("GET", f"/v1/saved-searches/{quote(id)}/matches", MatchPage, query={"limit": limit, "cursor": cursor})
        )

    async def evaluate_search(
        self,
        *,
        file: Picture | None = None,
        split: str | None = None,
        k: Sequence[int] | None = None,
        pictures: str | None = None,
        collection: str | None = None,
        source: str | None = None,
    ) -> Job:
        """Measure how good the search is. A job does it; its `result` has the figures and the worst misses. The
        texts are the captions of the collection, or those of a set of pairs: a table of pictures and texts, or a
        file of Karpathy's splits of COCO or Flickr30k. The pictures of a set are those stored, or in a folder of
        the server.
        """
        return await self._run(
            Call(
                "POST",
                "/v1/evaluations",
                Job,
                body={
                    "file": file,
                    "split": split,
                    "k": k,
                    "pictures": pictures,
                    "collection": collection,
                    "source": source,
                },
                files="file",
                is_keyed=True,
            )
        )

    async def add_demo(self, *, collection: str | None = None) -> Job:
        """Add the demo gallery. A job adds its pictures as if they had been sent; its texts come beside them."""
        return await self._run(Call("POST", "/v1/demo", Job, query={"collection": collection}, is_repeatable=False))

    async def list_duplicates(
        self,
        *,
        kind: Literal["exact", "near"] | None = None,
        threshold: float | None = None,
        limit: int | None = None,
        cursor: str | None = None,
        collection: str | None = None,
    ) -> Duplicates:
        """List groups of duplicates. `POST /v1/duplicates` searches for them; this call only reads what was found."""
        return await self._run(
            Call(
                "GET",
                "/v1/duplicates",
                Duplicates,
                query={
                    "kind": kind,
                    "threshold": threshold,
                    "limit": limit,
                    "cursor": cursor,
                    "collection": collection,
                },
            )
        )

    async def find_duplicates(self, *, collection: str | None = None) -> Job:
        """Search a collection for duplicates. A job compares the pictures that no search has compared with all
        others.
        """
        return await self._run(
            Call("POST", "/v1/duplicates", Job, query={"collection": collection}, is_repeatable=False)
        )

    async def get_enrichments(self, id: str, *, collection: str | None = None) -> Enrichments:
        """Get how far each second pass is with a picture. `ocr` has the lines of text that it read."""
        return await self._run(
            Call("GET", f"/v1/images/{quote(id)}/enrichments", Enrichments, query={"collection": collection})
        )

    async def enrich_again(
        self,
        *,
        kind: Literal["ocr", "caption"],
        filter: Filter | None = None,
        ids: Sequence[str] | None = None,
        all: bool | None = None,
        collection: str | None = None,
        failed_only: bool | None = None,
    ) -> Job:
        """Let pictures wait for a second pass again, before all others. The job ends when they wait."""
        return await self._run(
            Call(
                "POST",
                "/v1/enrichments",
                Job,
                body={
                    "kind": kind,
                    "filter": filter,
                    "ids": ids,
                    "all": all,
                    "collection": collection,
                    "failed_only": failed_only,
                },
                is_repeatable=False,
            )
        )

    async def put_texts(self, *, texts: Sequence[NewText], collection: str | None = None) -> StoredTexts:
        """Store up to 1,000 texts. A known id gets the new words; a search sent after this answer finds them."""
        return await self._run(
            Call("POST", "/v1/texts", StoredTexts, body={"texts": texts, "collection": collection}, is_keyed=True)
        )

    async def list_texts(
        self, *, limit: int | None = None, cursor: str | None = None, collection: str | None = None
    ) -> TextPage:
        """List texts, newest first."""
        return await self._run(
            Call("GET", "/v1/texts", TextPage, query={"limit": limit, "cursor": cursor, "collection": collection})
        )

    async def get_text(self, id: str, *, collection: str | None = None) -> Text:
        """Get one text."""
        return await self._run(Call("GET", f"/v1/texts/{quote(id)}", Text, query={"collection": collection}))

    async def delete_text(
        self, id: str, *, dry_run: bool | None = None, collection: str | None = None
    ) -> DeletedTexts | None:
        """Delete a text. No search sent after this answer finds it."""
        return await self._run(
            Call(
                "DELETE",
                f"/v1/texts/{quote(id)}",
                DeletedTexts,
                query={"dry_run": dry_run, "collection": collection},
                is_optional=True,
            )
        )

    async def list_collections(self) -> Collections:
        """List the collections, with their counts and spaces."""
        return await self._run(Call("GET", "/v1/collections", Collections))

    async def create_collection(self, *, name: str, description: str | None = None) -> Collection:
        """Create an empty collection. 409 `id_conflict` when there is one of this name."""
        return await self._run(
            Call(
                "POST",
                "/v1/collections",
                Collection,
                body={"name": name, "description": description},
                is_repeatable=False,
            )
        )

    async def get_collection(self, name: str) -> Collection:
        """Get one collection, with its counts and space."""
        return await self._run(Call("GET", f"/v1/collections/{quote(name)}", Collection))

    async def update_collection(self, name: str, *, description: str) -> Collection:
        """Change a collection's description."""
        return await self._run(
            Call("PATCH", f"/v1/collections/{quote(name)}", Collection, body={"description": description})
        )

    async def delete_collection(self, name: str, *, dry_run: bool | None = None) -> DeletedCollections | None:
        """Delete a collection with all that is in it. Its running jobs end as `cancelled`; `default` stays."""
        return await self._run(
            Call(
                "DELETE",
                f"/v1/collections/{quote(name)}",
                DeletedCollections,
                query={"dry_run": dry_run},
                is_optional=True,
            )
        )

    async def use_head(self, name: str, *, head: str | None) -> Collection:
        """Use a head that the collection was taught, or none. The next search follows; no vector changes."""
        return await self._run(
            Call("PUT", f"/v1/collections/{quote(name)}/head", Collection, body={"head": head}, nulls=("head",))
        )

    async def get_labels(self, name: str) -> Labels:
        """Get the labels of a collection, with how many pictures each has tagged."""
        return await self._run(Call("GET", f"/v1/collections/{quote(name)}/labels", Labels))

    async def set_labels(
        self,
        name: str,
        *,
        labels: Sequence[NewLabel],
        templates: Literal["auto", "none"] | Sequence[str] | None = None,
        threshold: float | None = None,
    ) -> Labels:
        """Replace the labels of a collection. New pictures are tagged as they come; a job tags those that are
        there. It takes off the tags of labels that are gone.
        """
        return await self._run(
            Call(
                "PUT",
                f"/v1/collections/{quote(name)}/labels",
                Labels,
                body={"labels": labels, "templates": templates, "threshold": threshold},
            )
        )

    async def delete_labels(self, name: str) -> None:
        """Take all labels away. A job takes their tags off the pictures."""
        await self._run(Call("DELETE", f"/v1/collections/{quote(name)}/labels", None))

    async def apply_labels(self, name: str) -> Job:
        """Compare every picture with the labels again: after the collection has grown much, say."""
        return await self._run(Call("POST", f"/v1/collections/{quote(name)}/labels/apply", Job, is_keyed=True))

    async def teach_head(
        self,
        *,
        file: Picture | None = None,
        split: str | None = None,
        dry_run: bool | None = None,
        take_on: bool | None = None,
        collection: str | None = None,
        source: str | None = None,
    ) -> Job:
        """Teach a collection a head. A job learns a linear map of texts from pairs, and keeps it only if it helps.
        The pairs are the captions of the collection, or a set that is sent along or lies on the server.
        """
        return await self._run(
            Call(
                "POST",
                "/v1/heads",
                Job,
                body={
                    "file": file,
                    "split": split,
                    "dry_run": dry_run,
                    "take_on": take_on,
                    "collection": collection,
                    "source": source,
                },
                files="file",
                is_keyed=True,
            )
        )

    async def list_heads(self, *, collection: str | None = None) -> Heads:
        """List heads, newest first."""
        return await self._run(Call("GET", "/v1/heads", Heads, query={"collection": collection}))

    async def get_head(self, id: str) -> Head:
        """Get one head, with its figures."""
        return await self._run(Call("GET", f"/v1/heads/{quote(id)}", Head))

    async def delete_head(self, id: str, *, dry_run: bool | None = None) -> DeletedHeads | None:
        """Delete a head. A collection that uses it searches without one from now on."""
        return await self._run(
            Call("DELETE", f"/v1/heads/{quote(id)}", DeletedHeads, query={"dry_run": dry_run}, is_optional=True)
        )

    async def change_model(
        self,
        *,
        model: str,
        precision: Literal["fp32", "bf16", "fp16", "int8"] | None = None,
        dry_run: bool | None = None,
    ) -> Job:
        """Move all collections to another model. Searches go on in the old space until a job has filled the new
        one. Then both change places in one step. Cancelling the job before leaves everything as it was. With
        `dry_run` the job only loads the model and tells what the change would cost: disk, memory and time.
        """
        return await self._run(
            Call(
                "POST",
                "/v1/reembed",
                Job,
                body={"model": model, "precision": precision, "dry_run": dry_run},
                is_repeatable=False,
            )
        )

    async def get_session(self) -> Session:
        """Say whether a key is needed, and what the request's own key allows. `scope` is null without one."""
        return await self._run(Call("GET", "/v1/session", Session))

    async def open_session(self, *, key: str) -> Session:
        """Begin a session with a key. The cookie of the answer stands for it until the key or 30 days have ended."""
        return await self._run(Call("POST", "/v1/session", Session, body={"key": key}, is_repeatable=False))

    async def close_session(self) -> None:
        """End the session of the request's cookie."""
        await self._run(Call("DELETE", "/v1/session", None))
