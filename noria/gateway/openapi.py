"""What the data plane speaks, as an OpenAPI 3.1 document (https://spec.openapis.org/oas/v3.1.0)."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from noria import __version__
from noria.gateway.batch.api import ENDPOINTS
from noria.gateway.batch.uploads import PURPOSES

Schema = dict[str, Any]

_TEXT: Schema = {"type": "string"}
_TRUE: Schema = {"type": "boolean"}
_NUMBER: Schema = {"type": "number"}
_COUNT: Schema = {"type": "integer", "minimum": 0}
_POSITIVE: Schema = {"type": "integer", "minimum": 1, "maximum": 8192}
_OBJECT: Schema = {"type": "object"}
_ANYTHING: Schema = {}
_FAULTS: Mapping[str, str] = {
    "400": "A field is missing or wrong, or a guard refused the request.",
    "401": "The key is missing, unknown or revoked, or may not ask this model.",
    "404": "There is no such model, or its engine lacks this endpoint.",
    "405": "The path does not take this method; `allow` says which.",
    "409": "The thing is not in a state in which that can be done.",
    "413": "The body is longer than `[gateway] body_bytes`.",
    "429": "A limit of the key or of the task is used up; `x-noria-limit` names it.",
    "500": "The gateway failed.",
    "502": "The engine failed, or its answer was none.",
    "503": "No engine can be reached, or the answer could not be logged.",
    "504": "The engine took too long, or the deadline of the request has passed.",
    "default": "The engine refused the request with this status; the message is its own.",
}
_KEYLESS = ("405", "500")


def document() -> dict[str, Any]:
    """The whole description. Every path answers below `/v1` and without it."""
    return {
        "openapi": "3.1.0",
        "info": {
            "title": "noria",
            "version": __version__,
            "description": "OpenAI's API for the tasks and models of this deployment. Fields that are not described "
            "are passed on to the engine untouched.",
            "license": {"name": "Apache-2.0", "identifier": "Apache-2.0"},
        },
        "servers": [{"url": "/v1"}, {"url": "/"}],
        "security": [{"key": []}],
        "paths": {**_inference(), **_open(), **_desk(), **_files(), **_batches()},
        "components": {
            "schemas": _schemas(),
            "headers": _headers(),
            "responses": _responses(),
            "parameters": _parameters(),
            "securitySchemes": {"key": {"type": "http", "scheme": "bearer", "description": "`noria keys create`"}},
        },
    }


def _inference() -> dict[str, Any]:
    asked = (
        ("/chat/completions", "chat", "Answer a conversation.", "ChatRequest", "Completion", True),
        ("/completions", "completions", "Go on with a text.", "CompletionRequest", "Completion", True),
        ("/responses", "responses", "Answer, in the form of the Responses API; stateless.", "ResponseRequest",
         "Response", True),
        ("/embeddings", "embeddings", "Texts as vectors.", "EmbeddingRequest", "Anything", False),
        ("/rerank", "rerank", "Order documents by their relevance to a query.", "RerankRequest", "Anything", False),
        ("/classify", "classify", "Classify texts.", "ClassifyRequest", "Anything", False),
        ("/tokenize", "tokenize", "A text as token ids.", "TokenizeRequest", "Anything", False),
    )  # fmt: skip
    paths = {
        path: {"post": _asking(name, summary, _json(request), _answered(answer, streams))}
        for path, name, summary, request, answer, streams in asked
    }
    generate = _asking(
        "generate", "One prompt in, one text out; fields in the query, in the body, or in both.",
        _json("GenerateRequest"), _answered("Generated", False),
    )  # fmt: skip
    generate["requestBody"]["required"] = False
    generate["parameters"] += [
        {"name": name, "in": "query", "schema": schema} for name, schema in _generate_fields().items()
    ]
    return {**paths, "/generate": {"post": generate}}


def _open() -> dict[str, Any]:
    """What needs no key: it tells nothing of anybody."""
    health = _content("application/json", _ref("Health"))
    return {
        "/health": {"get": _keyless("health", "Whether the gateway lives.", _said("It does.", health))},
        "/ready": {
            "get": _keyless(
                "ready", "Whether there is a route to any model.",
                {**_said("There is.", health),
                 "503": {"description": "Not yet.", **_content("application/json", _ref("NotReady"))}},
            )
        },
        "/metrics": {
            "get": _keyless(
                "metrics", "Counts and times in Prometheus' text format.",
                _said("All workers together.", _content("text/plain", _TEXT)),
            )
        },
        "/openapi.json": {
            "get": _keyless(
                "openapi", "This description.", _said("It.", _content("application/json", _object("openapi", "paths")))
            )
        },
    }  # fmt: skip


def _desk() -> dict[str, Any]:
    """What needs a key and asks no engine."""
    name = {"name": "model", "in": "path", "required": True, "schema": _ref("ModelName")}
    return {
        "/models": {
            "get": _operation(
                "models", "The models that the key may ask.", _said("They.", _content("application/json",
                _object("object", "data", object={"const": "list"}, data=_list(_ref("Model"))))), ("401",),
            )
        },
        "/models/{model}": {
            "get": _operation(
                "model", "One model.", _said("It.", _content("application/json", _ref("Model"))), ("401", "404")
            ) | {"parameters": [name]}
        },
        "/feedback": {
            "post": _operation(
                "feedback", "Say of an answer how it was.",
                _said("It is logged.", _content("application/json", _object("id", id=_TEXT))),
                ("400", "401", "413", "503"),
            ) | {"requestBody": _json("FeedbackRequest")}
        },
    }  # fmt: skip


def _files() -> dict[str, Any]:
    """A key sees its own files only."""
    name = {"name": "file", "in": "path", "required": True, "schema": _TEXT}
    file, gone = _content("application/json", _ref("File")), ("401", "404", "503")
    page = _content("application/json", _page("File"))
    listed = _operation("files", "The files of the key.", _said("A page of them.", page), ("400", "401", "503"))
    order = {"name": "order", "in": "query", "schema": {"enum": ["asc", "desc"]}}
    purpose = {"name": "purpose", "in": "query", "schema": _TEXT}
    form = {"required": True, **_content("multipart/form-data", _ref("Upload"))}
    taken = _operation("upload", "Upload a file.", _said("It is stored.", file), ("400", "401", "413", "429", "503"))
    bytes_ = _said("Its bytes.", _content("application/octet-stream", {**_TEXT, "format": "binary"}))
    deleted = _object("id", "object", "deleted", id=_TEXT, object={"const": "file"}, deleted={"const": True})
    removed = _said("It is gone.", _content("application/json", deleted))
    return {
        "/files": {
            "get": listed | {"parameters": [*_paging(10_000), order, purpose]}, "post": taken | {"requestBody": form},
        },
        "/files/{file}": {
            "parameters": [name],
            "get": _operation("file", "One file.", _said("It.", file), gone),
            "delete": _operation("delete-file", "Delete a file.", removed, gone),
        },
        "/files/{file}/content": {
            "parameters": [name], "get": _operation("file-content", "What stands in a file.", bytes_, gone),
        },
    }  # fmt: skip


def _batches() -> dict[str, Any]:
    """A key sees its own batches only."""
    name = {"name": "batch", "in": "path", "required": True, "schema": _TEXT}
    batch, page = _content("application/json", _ref("Batch")), _content("application/json", _page("Batch"))
    listed = _operation("batches", "The batches of the key.", _said("A page of them.", page), ("400", "401", "503"))
    begun = _operation(
        "begin-batch", "Have the lines of a file answered while clients leave room.", _said("It waits.", batch),
        ("400", "401", "404", "413", "429", "503"),
    )  # fmt: skip
    wanted = {"requestBody": _json("BatchRequest"), "parameters": [_ref("train", "parameters")]}
    return {
        "/batches": {"get": listed | {"parameters": _paging(100)}, "post": begun | wanted},
        "/batches/{batch}": {
            "parameters": [name], "get": _operation("batch", "One batch.", _said("It.", batch), ("401", "404", "503")),
        },
        "/batches/{batch}/cancel": {
            "parameters": [name],
            "post": _operation(
                "cancel-batch", "Stop a batch; what was answered stays.", _said("It will stop.", batch),
                ("401", "404", "409", "503"),
            ),
        },
    }  # fmt: skip


def _paging(most: int) -> list[dict[str, Any]]:
    limit = {"type": "integer", "minimum": 1, "maximum": most}
    return [{"name": "limit", "in": "query", "schema": limit}, {"name": "after", "in": "query", "schema": _TEXT}]


def _page(name: str) -> Schema:
    return _object(
        "object", "data", "first_id", "last_id", "has_more", object={"const": "list"}, data=_list(_ref(name)),
        first_id=_maybe(_TEXT), last_id=_maybe(_TEXT), has_more=_TRUE,
    )  # fmt: skip


def _asking(name: str, summary: str, body: Schema, answer: Schema) -> dict[str, Any]:
    operation = _operation(name, summary, {"200": answer}, [each for each in _FAULTS if each != "409"])
    operation["parameters"] = [{"$ref": f"#/components/parameters/{each}"} for each in _parameters()]
    operation["requestBody"] = body
    return operation


def _operation(name: str, summary: str, answers: Schema, faults: Sequence[str]) -> dict[str, Any]:
    told = {status: {"$ref": f"#/components/responses/{_fault_name(status)}"} for status in (*faults, *_KEYLESS)}
    return {"operationId": name, "summary": summary, "responses": {**told, **answers}}


def _keyless(name: str, summary: str, answers: Schema) -> dict[str, Any]:
    return {**_operation(name, summary, answers, ()), "security": []}


def _answered(answer: str, streams: bool) -> Schema:
    content = _content("application/json", _ref(answer))["content"]
    if streams:
        content["text/event-stream"] = {}
    headers = {
        name: {"$ref": f"#/components/headers/{name}"} for name in _headers() if name not in ("retry-after", "limit")
    }
    description = "The answer, which is in the log before its end is sent."
    if streams:
        description += " With `stream: true`, server-sent events; an error in their midst is an event with `error`."
    return {"description": description, "headers": headers, "content": content}


def _responses() -> dict[str, Any]:
    content = _content("application/json", _ref("Error"))
    found: dict[str, Any] = {
        _fault_name(status): {"description": text, **content} for status, text in _FAULTS.items()
    }  # fmt: skip
    again = {"retry-after": {"$ref": "#/components/headers/retry-after"}}
    found[_fault_name("429")]["headers"] = {**again, "x-noria-limit": {"$ref": "#/components/headers/limit"}}
    found[_fault_name("503")]["headers"] = again
    return found


def _fault_name(status: str) -> str:
    return f"fault-{status}"


def _headers() -> dict[str, Any]:
    return {
        "x-noria-interaction": {"description": "Id of the answer, for feedback and `noria why`.", "schema": _TEXT},
        "x-noria-served-by": {"description": "What answered: a ref.", "schema": _TEXT},
        "x-noria-light": {"description": "How far to trust the answer, where the task has lights.", "schema": _TEXT},
        "retry-after": {"description": "Seconds to wait.", "schema": _POSITIVE},
        "limit": {"description": "The limit that is used up.", "schema": _TEXT},
    }


def _parameters() -> dict[str, Any]:
    return {
        "timeout": {
            "name": "x-noria-timeout", "in": "header", "schema": {"type": "number", "minimum": 0.1},
            "description": "Seconds for the whole request, if less than `[gateway] deadline`.",
        },
        "train": {
            "name": "x-noria-train", "in": "header", "schema": _TEXT,
            "description": "`no`: nothing may be learned from this request.",
        },
        "traceparent": {
            "name": "traceparent", "in": "header", "description": "W3C Trace Context.",
            "schema": {**_TEXT, "pattern": "^[0-9a-f]{2}-[0-9a-f]{32}-[0-9a-f]{16}-[0-9a-f]{2}$"},
        },
    }  # fmt: skip


def _schemas() -> dict[str, Any]:
    return {
        "Error": _object("error", error=_object("message", "type", "param", "code", message=_TEXT, type=_TEXT)),
        "ModelName": {**_TEXT, "description": "A task, a base model `BASE`, or an adapter on it `BASE:ADAPTER`."},
        "Model": _object(
            "id", "object", "created", "owned_by", id=_TEXT, object={"const": "model"}, created=_COUNT, owned_by=_TEXT
        ),
        "Health": _object(
            "status", "pid", "snapshot", "inflight", status={"const": "ok"}, pid=_COUNT, snapshot={"type": "integer"}
        ),
        "NotReady": _object("status", status=_TEXT),
        "Anything": {"description": "The engine's own answer, untouched."},
        **_requests(),
        **_answers(),
        **_stored(),
    }


def _stored() -> dict[str, Any]:
    """What `/files` and `/batches` take and tell."""
    at, kept = _maybe(_COUNT), {"type": "integer", "minimum": 3600, "maximum": 30 * 86400}
    stage = ("validating", "in_progress", "finalizing", "completed", "failed", "cancelling", "cancelled", "expired")
    times = ("in_progress", "finalizing", "completed", "failed", "expired", "cancelling", "cancelled")
    counts = _object("total", "completed", "failed", total=_COUNT, completed=_COUNT, failed=_COUNT)
    return {
        "File": _object(
            "id", "object", "bytes", "created_at", "filename", "purpose", id=_TEXT, object={"const": "file"},
            bytes=_COUNT, created_at=_COUNT, filename=_TEXT, purpose=_TEXT, expires_at=at,
        ),
        "Upload": {
            **_object("file", "purpose", file={**_TEXT, "format": "binary"}, purpose={"enum": list(PURPOSES)}),
            "description": "With `expires_after[anchor]` and `expires_after[seconds]`, as OpenAI's clients send them.",
        },
        "BatchRequest": _object(
            "input_file_id", "endpoint", "completion_window", input_file_id=_TEXT, endpoint={"enum": list(ENDPOINTS)},
            completion_window={**_TEXT, "pattern": "^([1-9]|[12][0-9]|30)d$|^[1-9][0-9]?h$"},
            metadata=_maybe({"type": "object", "maxProperties": 16, "additionalProperties": {
                **_TEXT, "maxLength": 512}, "propertyNames": {"maxLength": 64}}),
            output_expires_after=_maybe(_object("anchor", "seconds", anchor={"const": "created_at"}, seconds=kept)),
        ),
        "Batch": _object(
            "id", "object", "endpoint", "input_file_id", "completion_window", "status", "created_at", "request_counts",
            id=_TEXT, object={"const": "batch"}, endpoint=_TEXT, input_file_id=_TEXT, completion_window=_TEXT,
            status={"enum": list(stage)}, created_at=_COUNT, expires_at=at, output_file_id=_maybe(_TEXT),
            error_file_id=_maybe(_TEXT), errors=_maybe(_OBJECT), model=_maybe(_TEXT), usage=_maybe(_OBJECT),
            metadata=_maybe(_OBJECT), request_counts=counts, **{f"{each}_at": at for each in times},
        ),
    }  # fmt: skip


def _requests() -> dict[str, Any]:
    words = {"oneOf": [_filled(_TEXT), _list(_filled(_TEXT), least=1)]}
    return {
        "Message": _message(),
        "ChatRequest": _object(
            "model", "messages", messages=_list(_ref("Message"), least=1), tools=_list(_OBJECT),
            tool_choice=_ANYTHING, response_format=_OBJECT, logprobs=_maybe(_TRUE), top_logprobs=_maybe(_COUNT),
            max_completion_tokens=_maybe(_POSITIVE), **_shared(),
        ),
        "CompletionRequest": _object(
            "model", "prompt", logprobs=_maybe(_COUNT), echo=_maybe(_TRUE), **_shared(),
            prompt={"oneOf": [_filled(_TEXT), _list(_filled(_TEXT), least=1), _list(_COUNT, least=1)]},
        ),
        "ResponseRequest": _object(
            "model", "input", model=_ref("ModelName"), instructions=_maybe(_TEXT), stream=_maybe(_TRUE),
            input={"oneOf": [_filled(_TEXT), _list(_ref("Item"), least=1)]}, tools=_list(_ref("Tool")),
            tool_choice={"enum": ["auto", "none", "required", None]},
            max_output_tokens=_maybe(_POSITIVE), temperature=_maybe(_NUMBER),
            top_p=_maybe(_NUMBER), metadata=_maybe(_OBJECT), user=_maybe(_TEXT), store=_maybe(_TRUE),
        ),
        "Item": _object(
            "role", "content", type={"const": "message"}, content=_TEXT,
            role={"enum": ["user", "assistant", "system", "developer"]},
        ),
        "Tool": _object("type", "name", type={"const": "function"}, name=_filled(_TEXT), parameters=_maybe(_OBJECT)),
        "EmbeddingRequest": _object("model", "input", model=_ref("ModelName"), input=words),
        "RerankRequest": _object(
            "model", "query", "documents", model=_ref("ModelName"), query=_filled(_TEXT),
            documents=_list({"oneOf": [_filled(_TEXT), _object("text", text=_TEXT)]}, least=1),
        ),
        "ClassifyRequest": _object("model", "input", model=_ref("ModelName"), input=words),
        "TokenizeRequest": _object("model", "prompt", model=_ref("ModelName"), prompt=_TEXT),
        "GenerateRequest": _object(**_generate_fields()),
        "FeedbackRequest": _feedback(),
    }  # fmt: skip


def _message() -> Schema:
    content = {"oneOf": [_TEXT, _list(_object("type", "text", type={"const": "text"}, text=_TEXT), least=1)]}
    return {
        "oneOf": [
            _object("role", "content", role={"enum": ["system", "developer", "user"]}, content=content),
            _object("role", role={"const": "assistant"}, content=_maybe(content), tool_calls=_list(_OBJECT)),
            _object("role", "content", role={"const": "tool"}, content=content, tool_call_id=_TEXT),
        ]
    }


def _shared() -> dict[str, Schema]:
    """Fields of all that generates."""
    return {
        "model": _ref("ModelName"), "stream": _maybe(_TRUE), "stream_options": _maybe(_object(include_usage=_TRUE)),
        "max_tokens": _maybe(_POSITIVE), "n": _maybe({"type": "integer", "minimum": 1, "maximum": 8}),
        "stop": {"oneOf": [{"type": "null"}, _TEXT, _list(_TEXT)]}, "temperature": _maybe(_NUMBER),
        "top_p": _maybe(_NUMBER), "seed": _maybe({"type": "integer"}), "user": _maybe(_TEXT),
        "metadata": _maybe(_object(conversation=_TEXT)), "store": _maybe(_TRUE),
    }  # fmt: skip


def _generate_fields() -> dict[str, Schema]:
    return {
        "prompt": _filled(_TEXT), "model": _ref("ModelName"), "max_new_tokens": _POSITIVE, "temperature": _NUMBER,
        "top_p": _NUMBER, "seed": {"type": "integer"},
    }  # fmt: skip


def _feedback() -> Schema:
    words = {"type": ["string", "null"], "pattern": "\\S"}
    fields = {
        "interaction": {**_TEXT, "format": "uuid", "description": "The answer's `x-noria-interaction`."},
        "metric": {"type": ["string", "null"], "pattern": "^[A-Za-z0-9][A-Za-z0-9_.-]{0,62}$"},
        "value": {"type": ["number", "boolean", "null"]},
        "correction": {**words, "description": "The answer as it should have been."},
        "user": words,
    }
    scored = _object("metric", "value", metric=_TEXT, value={"type": ["number", "boolean"]})
    return {
        **_object("interaction", **fields), "additionalProperties": False,
        "anyOf": [scored, _object("correction", correction=_TEXT)],
    }  # fmt: skip


def _answers() -> dict[str, Any]:
    usage = _object(prompt_tokens=_COUNT, completion_tokens=_COUNT, total_tokens=_COUNT)
    return {
        "Completion": _object("choices", "model", choices=_list(_OBJECT, least=1), model=_TEXT, usage=usage),
        "Response": _object(
            "id", "object", "created_at", "status", "model", "output", "store", "usage", id=_TEXT,
            object={"const": "response"}, created_at=_NUMBER, model=_TEXT, output=_list(_OBJECT),
            status={"enum": ["completed", "incomplete"]}, store={"const": False},
            usage=_object("input_tokens", "output_tokens", "total_tokens", input_tokens=_COUNT, output_tokens=_COUNT),
        ),
        "Generated": _object("generated_text", generated_text=_TEXT),
    }  # fmt: skip


def _object(*required: str, **properties: Schema) -> Schema:
    found: Schema = {"type": "object", "properties": properties}
    return {**found, "required": list(required)} if required else found


def _list(each: Schema, least: int = 0) -> Schema:
    return {"type": "array", "items": each, **({"minItems": least} if least else {})}


def _filled(text: Schema) -> Schema:
    return {**text, "minLength": 1}


def _maybe(schema: Schema) -> Schema:
    return {"anyOf": [schema, {"type": "null"}]}


def _ref(name: str, kind: str = "schemas") -> Schema:
    return {"$ref": f"#/components/{kind}/{name}"}


def _content(kind: str, schema: Schema) -> Schema:
    return {"content": {kind: {"schema": schema}}}


def _json(name: str) -> Schema:
    return {"required": True, **_content("application/json", _ref(name))}


def _said(description: str, content: Schema) -> dict[str, Any]:
    return {"200": {"description": description, **content}}
